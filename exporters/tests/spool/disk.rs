//! A disk that is full.

use std::{path::Path, process::Command};

use kldtrace_exporters::{
    push::Lane,
    spool::{Error, Spool},
};

use super::{ALL, drain, entry, open, standing};

/// A filesystem of 2 MiB for as long as this lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(directory.path())
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(directory))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Appends from `next` until the disk takes no more; the first that it did not
/// take.
fn fill(spool: &Spool, mut next: u64) -> u64 {
    loop {
        match spool.append(&[(Lane::Events, &entry(next, 10_000))]) {
            Ok(()) => next += 1,
            Err(Error::Disk { .. }) => return next,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_that_was_taken() {
    let Some(small) = Small::mount() else {
        println!("skipped: mounting takes root");
        return;
    };
    let (mut spool, mut reader) = open(small.path(), ALL);
    let refused = fill(&spool, 0);
    assert!(refused > 50, "{refused}");
    for _ in 0..3 {
        // It is full, and stays so, for entries of this size.
        assert_eq!(fill(&spool, refused), refused);
    }
    let failed = spool.statistics().failed;
    assert!(failed >= 4, "{failed}");
    // A restart on the full disk, and all is there.
    drop((spool, reader));
    (spool, reader) = open(small.path(), ALL);
    assert_eq!(standing(&spool).waiting, refused);
    let mut found = drain(&mut reader);
    assert_eq!(found, (0..refused).collect::<Vec<_>>());
    // What was read made room: it goes on where it was refused.
    let end = fill(&spool, refused);
    assert!(end > refused + 10, "{end}");
    found.extend(drain(&mut reader));
    assert_eq!(found, (0..end).collect::<Vec<_>>());
    assert_eq!((standing(&spool).dropped, standing(&spool).damaged), (0, 0));
}
