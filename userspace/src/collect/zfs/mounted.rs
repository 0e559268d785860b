//! Whether any dataset is mounted, for who asks often.
//!
//! As long as one is, its file system keeps the module from being unloaded
//! (fs/filesystems.c: `get_filesystem`).

use std::{
    fs::{self, File},
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{KSTAT, datasets::mounts};

const MOUNTS: &str = "/proc/self/mountinfo";
/// A file system goes after its mount, as soon as it has been written out.
const PATIENCE: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(2);

/// The mounts of this namespace. A mount that is seen in another alone does not
/// count.
pub struct Mounted {
    /// Tells of changes to whoever waits, each once; so each reader has its own.
    wake: io::Result<File>,
    changes: io::Result<File>,
    any: Option<bool>,
}

impl Default for Mounted {
    fn default() -> Self {
        Self {
            wake: File::open(MOUNTS),
            changes: File::open(MOUNTS),
            any: None,
        }
    }
}

impl Mounted {
    /// Becomes `POLLPRI` at each change (proc(5)), for waiting only.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.wake.as_ref().ok()?.as_fd())
    }

    /// Whether any dataset is mounted. Mounts are read only when they have
    /// changed; without them none is.
    pub fn any(&mut self) -> bool {
        if let (Some(any), false) = (self.any, self.changed()) {
            return any;
        }
        let text = fs::read(MOUNTS).unwrap_or_default();
        let any = mounts(&String::from_utf8_lossy(&text)).next().is_some();
        self.any = Some(any);
        any
    }

    /// Waits a moment for the file system of the last dataset to go; false: there
    /// is one still, mounted in another namespace, or a volume. Each has a table of
    /// its own (module/os/linux/zfs/zfs_vfsops.c: `dataset_kstats_create`).
    pub fn gone() -> bool {
        let until = Instant::now() + PATIENCE;
        while any_objset(Path::new(KSTAT)) {
            if Instant::now() > until {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }

    fn changed(&self) -> bool {
        let Ok(changes) = &self.changes else {
            return true;
        };
        let mut one = [PollFd::new(changes.as_fd(), PollFlags::POLLPRI)];
        // What cannot be asked may have changed.
        poll(&mut one, PollTimeout::ZERO).map_or(true, |ready| ready > 0)
    }
}

/// Whether any pool has an object set in use.
fn any_objset(kstat: &Path) -> bool {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    entries(kstat).any(|pool| {
        entries(&pool.path())
            .any(|file| file.file_name().as_encoded_bytes().starts_with(b"objset-"))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// A file system that is mounted until this is dropped.
    pub(crate) struct Tmpfs(TempDir);

    impl Tmpfs {
        /// `None`, and a line that says why, where this process may not.
        pub(crate) fn mount() -> Option<Self> {
            let folder = tempfile::tempdir().unwrap();
            let mut mount = Command::new("mount");
            mount.args(["-t", "tmpfs", "none"]).arg(folder.path());
            if mount.status().unwrap().success() {
                return Some(Self(folder));
            }
            println!("skipped: may not mount");
            None
        }
    }

    impl Drop for Tmpfs {
        fn drop(&mut self) {
            let done = Command::new("umount").arg(self.0.path()).status();
            assert!(done.unwrap().success());
        }
    }

    #[test]
    fn an_object_set_is_seen_in_any_pool() {
        let kstat = tempfile::tempdir().unwrap();
        assert!(!any_objset(&kstat.path().join("none")));
        for pool in ["a", "b"] {
            fs::create_dir(kstat.path().join(pool)).unwrap();
            fs::write(kstat.path().join(pool).join("state"), "ONLINE").unwrap();
        }
        assert!(!any_objset(kstat.path()));
        fs::write(kstat.path().join("b/objset-0x36"), "").unwrap();
        assert!(any_objset(kstat.path()));
    }

    #[test]
    fn mounts_are_read_when_they_have_changed() {
        let mut mounted = Mounted::default();
        let first = mounted.any();
        // What was read stays until something happens; other tests mount, too.
        let stays = |_| {
            mounted.any = Some(!first);
            mounted.any() != first
        };
        assert!((0..100).any(stays));
        let Some(tmpfs) = Tmpfs::mount() else { return };
        mounted.any = Some(!first);
        assert_eq!(mounted.any(), first);
        drop(tmpfs);
    }
}
