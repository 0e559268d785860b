//! The guest's root in memory: the same for all runs. What a run adds comes on
//! a disk of its own (`given`).

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::build::{Parts, copy};
use super::libraries::Libraries;
use crate::sh;

const INIT: &str = include_str!("guest.sh");

/// Programs of this machine that guests use, and whether they must be there.
const TOOLS: &[(&str, bool)] = &[
    ("busybox", true),
    ("dash", true),
    ("kmod", true),
    ("ip", true),
    ("tc", true),
    ("nft", true),
    ("wg", true),
    ("losetup", true),
    ("dmsetup", true),
    ("bpftool", false),
];

/// An archive that a kernel unpacks as its root.
#[derive(Debug)]
pub struct Root {
    /// The file.
    pub archive: PathBuf,
    /// What is in it, by paths without a slash in front.
    pub names: BTreeSet<PathBuf>,
}

/// Writes the root into `folder`, always the same from the same parts and
/// programs.
///
/// # Errors
/// When a program is missing, or the folder cannot be written.
pub fn write(parts: &Parts, folder: &Path) -> Result<Root> {
    let tree = folder.join("root");
    let _ = fs::remove_dir_all(&tree);
    fs::create_dir_all(&tree)?;
    for from in [&parts.root, &parts.more] {
        sh::output(sh::command("cp").arg("-a").arg(from.join(".")).arg(&tree))?;
    }
    // One list of all modules.
    let mut depmod = sh::command("depmod");
    sh::output(depmod.arg("-b").arg(&tree).arg(&parts.release))?;
    for dir in [
        "bin", "sbin", "proc", "sys", "dev", "etc", "given", "usr/sbin",
    ] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let there = BTreeSet::new();
    let mut needed = Libraries::new(&parts.root, &tree, &there);
    for (tool, required) in TOOLS.iter().copied() {
        match sh::find(tool) {
            Some(path) => {
                let place = match tool {
                    "busybox" => "bin/busybox".to_owned(),
                    "dash" => "bin/sh".to_owned(),
                    other => format!("usr/sbin/{other}"),
                };
                copy(&path.canonicalize()?, &tree.join(place))?;
                needed.of(&path)?;
            }
            None if required => bail!("{tool} is not installed: cargo xtask setup --for guest"),
            None => {}
        }
    }
    for name in ["modprobe", "insmod", "rmmod", "lsmod", "modinfo"] {
        std::os::unix::fs::symlink("/usr/sbin/kmod", tree.join("sbin").join(name))?;
    }
    for tool in ["zpool", "zfs", "zinject", "zdb"] {
        needed.of(&tree.join("usr/sbin").join(tool))?;
    }
    fs::write(tree.join("init"), INIT)?;
    make_executable(&tree.join("init"))?;
    let archive = folder.join("initramfs");
    let names = pack(&tree, &archive)?;
    fs::remove_dir_all(tree)?;
    Ok(Root { archive, names })
}

fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Packs a folder and says what is in it; not compressed, since unpacking is
/// slow under emulation, and without what would differ the next time.
fn pack(tree: &Path, archive: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut find = sh::command("find");
    find.args([".", "-mindepth", "1", "-print"]).args([
        "-exec",
        "touch",
        "--no-dereference",
        "--date=@0",
        "{}",
        "+",
    ]);
    let found = sh::output(find.current_dir(tree))?;
    // A folder comes before what is in it.
    let names: BTreeSet<_> = found.lines().map(PathBuf::from).collect();
    let mut child = Command::new("cpio")
        .args(["--quiet", "--reproducible", "-o", "-H", "newc"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(archive)?)
        .spawn()
        .context("cannot start cpio")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    for name in &names {
        writeln!(stdin, "{}", name.display())?;
    }
    drop(stdin);
    let status = child.wait()?;
    if !status.success() {
        bail!("cpio ended with {status}");
    }
    let names = names.iter().filter_map(|name| name.strip_prefix(".").ok());
    Ok(names.map(Path::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive() {
        let folder = std::env::temp_dir().join(format!("kldtrace-pack-{}", std::process::id()));
        let archives = ["a", "b"].map(|name| {
            let tree = folder.join(name);
            fs::create_dir_all(tree.join("bin/deep")).unwrap();
            fs::write(tree.join("bin/deep/tool"), "tool").unwrap();
            let archive = folder.join(format!("{name}.cpio"));
            let names = pack(&tree, &archive).unwrap();
            assert!(names.contains(Path::new("bin/deep/tool")), "{names:?}");
            std::thread::sleep(std::time::Duration::from_millis(1100));
            fs::read(archive).unwrap()
        });
        assert!(archives[0] == archives[1]);
        fs::remove_dir_all(folder).unwrap();
    }
}
