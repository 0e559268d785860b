//! Where planes are kept: what is in the kernel, and what is on disk.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

/// Two folders. What belongs together is always under both of one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// Pins of maps, programs and links ([`super::pins`]), in a BPF file
    /// system.
    pub pins: PathBuf,
    /// Policies and who applied them ([`super::state`]), on a disk.
    pub state: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            pins: "/sys/fs/bpf/kldtrace/planes".into(),
            state: "/var/lib/kldtrace/planes".into(),
        }
    }
}

impl Roots {
    /// The folders `bpf` and `state` of one folder.
    pub fn under(folder: &Path) -> Self {
        Self {
            pins: folder.join("bpf/planes"),
            state: folder.join("state"),
        }
    }

    /// Says how to get a BPF file system where there is none.
    ///
    /// # Errors
    /// When there is none.
    pub fn require_bpf_file_system(&self) -> anyhow::Result<()> {
        let there = self.pins.ancestors().find(|folder| folder.exists());
        let there = there.unwrap_or(Path::new("/"));
        let kind = statfs(there).with_context(|| format!("cannot look at {}", there.display()))?;
        ensure!(
            kind.filesystem_type() == BPF_FS_MAGIC,
            "{} is in no BPF file system, so nothing would go on after this process: \
             mount -t bpf bpf /sys/fs/bpf",
            self.pins.display()
        );
        Ok(())
    }
}
