//! The guest's root in memory: what all runs share, and what this run adds.
//! The kernel unpacks archives that follow each other one over the other.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::build::{LOADER, Parts, copy};
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
    ("prometheus", false),
    ("prometheus-alertmanager", false),
];

/// Files that these read.
const FILES: &[&str] = &[
    "/usr/share/prometheus/alertmanager/default.tmpl",
    "/usr/share/prometheus/alertmanager/email.tmpl",
];

/// What a run puts into the guest.
#[derive(Debug, Default)]
pub struct Run {
    /// A shell script, the only thing that the guest does.
    pub script: String,
    /// Programs, at the same place as here: tests know the path of the
    /// command that they test from when they were built.
    pub programs: Vec<PathBuf>,
    /// More programs of this machine, by name: they are there if they are
    /// installed here.
    pub tools: Vec<String>,
    /// Files that appear in /host.
    pub files: Vec<PathBuf>,
    /// Whether a person gets a shell in place of the script.
    pub shell: bool,
    /// Whether zfs and wireguard are left for the run itself to load.
    pub no_modules: bool,
}

/// Writes the whole archive of a run into `folder`.
pub fn write(parts: &Parts, run: &Run, folder: &Path) -> Result<PathBuf> {
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
        "bin", "sbin", "proc", "sys", "dev", "etc", "host", "usr/sbin",
    ] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let mut needed = Libraries::new(&tree);
    let more = run.tools.iter().map(|tool| (tool.as_str(), false));
    for (tool, required) in TOOLS.iter().copied().chain(more) {
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
    for file in FILES.iter().map(Path::new).filter(|file| file.exists()) {
        let place = tree.join(file.strip_prefix("/")?);
        fs::create_dir_all(place.parent().context("a file in no folder")?)?;
        copy(file, &place)?;
    }
    for name in ["modprobe", "insmod", "rmmod", "lsmod", "modinfo"] {
        std::os::unix::fs::symlink("/usr/sbin/kmod", tree.join("sbin").join(name))?;
    }
    for tool in ["zpool", "zfs", "zinject", "zdb"] {
        needed.of(&tree.join("usr/sbin").join(tool))?;
    }
    for program in &run.programs {
        let inside = program.strip_prefix("/").context("not a full path")?;
        copy(program, &tree.join(inside))?;
        // The guest's memory is small, and its processor slow.
        sh::output(
            sh::command("strip")
                .arg("--strip-debug")
                .arg(tree.join(inside)),
        )?;
        needed.of(program)?;
        let name = program.file_name().unwrap_or_default();
        let link = tree.join("usr/sbin").join(name);
        if !link.exists() {
            std::os::unix::fs::symlink(program, link)?;
        }
    }
    for file in &run.files {
        let name = file.file_name().context("a file without a name")?;
        copy(file, &tree.join("host").join(name))?;
    }
    for (flag, set) in [("shell", run.shell), ("no-modules", run.no_modules)] {
        if set {
            fs::write(tree.join(flag), "")?;
        }
    }
    fs::write(tree.join("run.sh"), &run.script)?;
    fs::write(tree.join("init"), INIT)?;
    make_executable(&tree.join("init"))?;
    let archive = folder.join("initramfs");
    pack(&tree, &archive)?;
    fs::remove_dir_all(tree)?;
    Ok(archive)
}

/// Copies the libraries of programs.
struct Libraries<'a> {
    tree: &'a Path,
    done: BTreeSet<PathBuf>,
    /// Whether the guest has a C library other than this machine's.
    foreign: bool,
}

impl<'a> Libraries<'a> {
    fn new(tree: &'a Path) -> Self {
        Self {
            tree,
            done: BTreeSet::new(),
            foreign: tree.join(LOADER).exists(),
        }
    }

    fn of(&mut self, program: &Path) -> Result<()> {
        let own = self.tree.join("lib/x86_64-linux-gnu");
        // A C library that the guest brings along needs its own loader; ldd
        // would start this machine's.
        let loader = self.tree.join(LOADER);
        let mut list = if self.foreign {
            let mut list = Command::new(loader);
            list.arg("--library-path").arg(&own).arg("--list");
            list
        } else {
            let mut list = Command::new("ldd");
            list.env("LD_LIBRARY_PATH", &own);
            list
        };
        let output = list
            .arg(program)
            .output()
            .context("cannot list the libraries of a program")?;
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            if library.starts_with(self.tree) || !self.done.insert(library.clone()) {
                continue;
            }
            // The place where the loader looks without a cache.
            let name = library.file_name().unwrap_or_default();
            let to = if name.to_string_lossy().starts_with("ld-linux") {
                self.tree.join("lib64").join(name)
            } else {
                own.join(name)
            };
            copy(&library.canonicalize()?, &to)?;
        }
        Ok(())
    }
}

/// Paths in what ldd prints; a static program has none.
fn libraries(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let path = match line.split_once("=>") {
                Some((_, path)) => path,
                None => line,
            };
            let path = path.split_whitespace().next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

fn make_executable(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Packs a folder; not compressed, since unpacking is slow under emulation.
fn pack(tree: &Path, archive: &Path) -> Result<()> {
    let names = sh::output(
        sh::command("find")
            .arg(".")
            .arg("-mindepth")
            .arg("1")
            .current_dir(tree),
    )?;
    let mut child = Command::new("cpio")
        .args(["--quiet", "-o", "-H", "newc"])
        .current_dir(tree)
        .stdin(Stdio::piped())
        .stdout(fs::File::create(archive)?)
        .spawn()
        .context("cannot start cpio")?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(names.as_bytes())?;
    drop(stdin);
    let status = child.wait()?;
    if !status.success() {
        bail!("cpio ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \tlibzfs.so.6 => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            libraries(text),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
