//! A small Debian of another release, to build in: newer kernels want the
//! compiler that built them, and their own tools a newer C library.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::apt::View;
use super::{say, scratch};
use crate::sh;

/// Enters the root: `sh -ec ENTER sh ROOT ALL FOLDER -c LINE`. Mounts are seen
/// in here only and end with it. The unpacked headers and kernel tools appear
/// where they would be installed, and the folder as /build.
const ENTER: &str = r#"
root=$1 all=$2 folder=$3
shift 3
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$folder" "$root/build"
for part in "$all"/usr/src "$all"/usr/lib/linux-kbuild-*; do
    [ -d "$part" ] || continue
    mkdir -p "$root${part#"$all"}"
    mount --bind "$part" "$root${part#"$all"}"
done
export PATH=/usr/sbin:/usr/bin LC_ALL=C
exec chroot "$root" /bin/sh -ec 'cd /build; exec /bin/sh "$@"' sh "$@"
"#;

/// The root.
pub struct BuildRoot {
    folder: PathBuf,
}

impl BuildRoot {
    /// The root with these packages and all that they need, as the archive has
    /// them today; from the cache, or made now.
    ///
    /// # Errors
    /// When a package is not to be had.
    pub fn of(packages: &[String], view: &View, cache: &Path) -> Result<Self> {
        let start = Instant::now();
        let all = view.closure(packages)?;
        let named = |separator: &str| -> Vec<_> {
            let each = all.iter();
            each.map(|(name, version)| format!("{name}{separator}{version}"))
                .collect()
        };
        let folder = cache.join(format!(
            "build-root_{}",
            &sh::sum(&named(" ").join("\n"))?[..12]
        ));
        let name = folder.display().to_string();
        if folder.is_dir() {
            say("build root", &format!("there: {name}"), start);
            return Ok(Self { folder });
        }
        let making = scratch::folder(cache, "making");
        let _ = fs::remove_dir_all(&making);
        let root = making.join("root");
        // Packages of today have everything below /usr.
        for part in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(root.join("usr").join(part))?;
            symlink(Path::new("usr").join(part), root.join(part))?;
        }
        view.unpack(&named("="), &making.join("packages"), &root)?;
        for place in ["dev", "proc", "tmp", "build"] {
            fs::create_dir_all(root.join(place))?;
        }
        // No script of a package runs here; this is the one that matters.
        let _ = symlink("gawk", root.join("usr/bin/awk"));
        let moved = fs::rename(&root, &folder);
        fs::remove_dir_all(making)?;
        if !folder.is_dir() {
            moved.with_context(|| format!("cannot make {name}"))?;
        }
        say(
            "build root",
            &format!("made of {} packages: {name}", all.len()),
            start,
        );
        Ok(Self { folder })
    }

    /// A shell inside, in `folder`, which it sees as /build; `all` has the
    /// kernel's headers unpacked. To be followed by the shell's arguments.
    ///
    /// # Errors
    /// When one of the paths does not exist.
    pub fn shell(&self, all: &Path, folder: &Path) -> Result<Command> {
        let mut command = sh::command("unshare");
        command
            .args(["--mount", "sh", "-ec", ENTER, "sh"])
            .arg(&self.folder)
            .arg(all.canonicalize()?)
            .arg(folder.canonicalize()?);
        Ok(command)
    }
}
