//! A disk that takes nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kldtrace_exporters::journal::Since;

use super::{Journald, Reading, deliver, journald::wait_for, list, numbers, open, settings, write};

#[test]
fn a_full_disk_holds_lines_back_and_loses_none() {
    let Some(journald) = Journald::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("spool");
    fs::create_dir(&mount).unwrap();
    let mount = Mount::new(&mount);
    let filler = mount.0.join("filler");
    fs::write(&filler, vec![0; 3 << 20]).unwrap();
    let (spool, reader) = open(folder.path());
    let settings = settings(folder.path(), &journald.directory());
    let reading = Reading::start(settings, spool.clone());
    let long = "x".repeat(1000);
    for number in 0..3000 {
        let line = format!("number {number}");
        journald.send(&[("MESSAGE", line.as_bytes()), ("CODE_FILE", long.as_bytes())]);
    }
    wait_for("a batch to be refused", || reading.counts().refused > 1);
    journald.wait_for("number 2999");
    assert!(reading.counts().behind);
    let shipped = reading.counts().shipped;
    assert!((1..2000).contains(&shipped), "{shipped}");
    // If it were killed now: what is not in the spool is behind the place, and
    // more if the disk did not take the last place.
    let place = fs::read_to_string(mount.0.join("journal.cursor")).unwrap();
    let (cursor, _checksum) = place.split_once(' ').unwrap();
    let missing = journald.entries() - shipped;
    assert!(journald.behind(cursor) >= missing, "{place} {missing}");
    fs::remove_file(filler).unwrap();
    wait_for("all lines", || {
        reading.counts().read() >= journald.entries() && !reading.counts().behind
    });
    let counts = reading.end();
    assert_eq!((counts.gaps, counts.lost), (0, 0));
    let stored = deliver(folder.path(), &spool, reader);
    assert_eq!(numbers(&stored), list(0..3000));
}

/// A filesystem of 4 MiB.
struct Mount(PathBuf);

impl Mount {
    fn new(path: &Path) -> Self {
        let mut command = Command::new("mount");
        command
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(path);
        assert!(command.status().unwrap().success());
        Self(path.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_place_that_cannot_be_kept_or_read_is_counted_and_costs_no_line() {
    let Some(journald) = Journald::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (spool, reader) = open(folder.path());
    let nowhere = folder.path().join("missing/journal.cursor");
    let mut first = settings(folder.path(), &journald.directory());
    first.place = nowhere.clone();
    let reading = Reading::start(first, spool.clone());
    write(&journald, 0..10);
    wait_for("the lines", || {
        reading.counts().shipped > 10 && !reading.counts().behind
    });
    assert!(reading.counts().unsaved > 0);
    fs::create_dir(nowhere.parent().unwrap()).unwrap();
    write(&journald, 10..20);
    wait_for("the place", || nowhere.exists());
    let counts = reading.end();
    assert_eq!(counts.cursor_resets, 0);
    assert_eq!(
        numbers(&deliver(folder.path(), &spool, reader)),
        list(0..20)
    );
    drop(spool);

    // With what is damaged, all comes again.
    let mut kept = fs::read(&nowhere).unwrap();
    kept[10] ^= 1;
    fs::write(&nowhere, kept).unwrap();
    let (spool, reader) = open(folder.path());
    let mut second = settings(folder.path(), &journald.directory());
    second.place = nowhere;
    second.since = Since::Now;
    let reading = Reading::start(second, spool.clone());
    wait_for("the lines", || {
        reading.counts().shipped > 20 && !reading.counts().behind
    });
    let counts = reading.end();
    assert_eq!((counts.cursor_resets, counts.gaps), (1, 0));
    assert_eq!(
        numbers(&deliver(folder.path(), &spool, reader)),
        list(0..20)
    );
}
