//! What a run gives its guests: a disk with programs, files and a script.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::build::{Parts, copy};
use super::initramfs::Root;
use super::libraries::Libraries;
use crate::sh;

/// Size of the disk, the same for all: a guest that is kept knows it already.
/// The file is sparse.
pub const SIZE: u64 = 2 << 30;

/// What a run puts into its guests.
#[derive(Debug, Default)]
pub struct Run {
    /// Programs, at the same place as here: tests know the path of the
    /// command that they test from when they were built.
    pub programs: Vec<PathBuf>,
    /// More programs of this machine, by name: they are there if they are
    /// installed here.
    pub tools: Vec<String>,
    /// Files that appear in /host.
    pub files: Vec<PathBuf>,
    /// Files of this machine that these tools read, at the same place, if
    /// there are such.
    pub read: &'static [&'static str],
    /// Whether a person gets a shell in place of the script.
    pub shell: bool,
}

/// A run's files, gathered until its disks are made.
#[derive(Debug)]
pub struct Given {
    tree: PathBuf,
}

impl Drop for Given {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.tree);
    }
}

impl Given {
    /// Gathers them below `folder`, for a guest with this root.
    ///
    /// # Errors
    /// When one of them cannot be copied.
    pub fn gather(parts: &Parts, root: &Root, run: &Run, folder: &Path) -> Result<Self> {
        let tree = folder.join("given");
        // Of a run that was ended.
        let _ = fs::remove_dir_all(&tree);
        // What is below `root` appears in the guest's own.
        let own = tree.join("root");
        for dir in [&own.join("usr/sbin"), &tree.join("host")] {
            fs::create_dir_all(dir)?;
        }
        let mut needed = Libraries::new(&parts.root, &own, &root.names);
        for tool in &run.tools {
            if let Some(path) = sh::find(tool) {
                copy(&path.canonicalize()?, &own.join("usr/sbin").join(tool))?;
                needed.of(&path)?;
            }
        }
        for file in run.read.iter().map(Path::new).filter(|file| file.exists()) {
            copy(file, &own.join(file.strip_prefix("/")?))?;
        }
        for program in &run.programs {
            let inside = program.strip_prefix("/").context("not a full path")?;
            copy(program, &own.join(inside))?;
            // The guest's memory is small, and its processor slow.
            let mut strip = sh::command("strip");
            sh::output(strip.arg("--strip-debug").arg(own.join(inside)))?;
            needed.of(program)?;
            let name = program.file_name().unwrap_or_default();
            let link = own.join("usr/sbin").join(name);
            if !link.exists() {
                std::os::unix::fs::symlink(program, link)?;
            }
        }
        for file in &run.files {
            let name = file.file_name().context("a file without a name")?;
            copy(file, &tree.join("host").join(name))?;
        }
        if run.shell {
            fs::write(tree.join("shell"), "")?;
        }
        Ok(Self { tree })
    }

    /// Makes a disk of them, with a script, which is the only thing that the
    /// guest does. Returns its file, in `folder`.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn disk(&self, script: &str, folder: &Path) -> Result<PathBuf> {
        fs::write(self.tree.join("run.sh"), script)?;
        // A guest that is kept has the time at which it was.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        fs::write(self.tree.join("now"), now.as_secs().to_string())?;
        let disk = folder.join("given.disk");
        let _ = fs::remove_file(&disk);
        fs::File::create(&disk)?.set_len(SIZE)?;
        let mut make = sh::command("mke2fs");
        make.args(["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d"]);
        sh::output(make.arg(&self.tree).arg(&disk)).with_context(|| {
            format!("cannot make a disk of {SIZE} bytes of what the run gives its guest")
        })?;
        Ok(disk)
    }
}
