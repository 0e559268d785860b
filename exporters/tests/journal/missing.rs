//! Entries that are gone before they are read: noticed, and counted.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::{
    Journald, Reading, called, children, deliver, in_place, journald::wait_for, list, numbers,
    open, settings, signal, write,
};

/// A journal whose source stops and goes on.
struct Stops {
    journald: Journald,
    folder: tempfile::TempDir,
}

impl Stops {
    fn start() -> Option<Self> {
        Some(Self {
            journald: Journald::start()?,
            folder: tempfile::tempdir().unwrap(),
        })
    }

    /// Reads up to the numbered line; the numbers that came, how often entries
    /// were gone, and how many.
    fn read_up_to(&self, number: u64) -> (Vec<u64>, u64, u64) {
        let line = format!("number {number}");
        self.journald.wait_for(&line);
        let (spool, reader) = open(self.folder.path());
        let settings = in_place(self.folder.path(), &self.journald);
        let reading = Reading::start(settings, spool.clone());
        let newest = newest(&self.journald);
        wait_for("the last entry to be read", || {
            let place = fs::read_to_string(self.folder.path().join("spool/journal.cursor"));
            place.is_ok_and(|place| place.contains(&newest))
        });
        let counts = reading.end();
        let stored = deliver(self.folder.path(), &spool, reader);
        (numbers(&stored), counts.gaps, counts.lost)
    }
}

/// The cursor of the last entry.
fn newest(journald: &Journald) -> String {
    let mut command = Command::new("journalctl");
    command.arg("--directory").arg(journald.directory());
    command.args(["--quiet", "--lines=1", "--output=export"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let cursor = text.lines().find_map(|line| line.strip_prefix("__CURSOR="));
    cursor.unwrap().to_owned()
}

#[test]
fn what_was_vacuumed_while_nobody_read_is_counted_exactly() {
    let Some(node) = Stops::start() else { return };
    write(&node.journald, 0..200);
    assert_eq!(node.read_up_to(199), (list(0..200), 0, 0));
    let read = node.journald.entries();
    write(&node.journald, 200..700);
    node.journald.wait_for("number 699");
    node.journald.rotate();
    let before = node.journald.entries();
    node.journald.vacuum();
    let gone = before - node.journald.entries();
    assert!(gone >= 700, "{gone}");
    write(&node.journald, 700..800);
    let (numbers, gaps, lost) = node.read_up_to(799);
    assert_eq!(numbers, list(700..800));
    assert_eq!((gaps, lost), (1, gone - read));
    // And it goes on from there.
    write(&node.journald, 800..900);
    assert_eq!(node.read_up_to(899), (list(800..900), 0, 0));
}

#[test]
fn a_journal_that_was_read_to_its_end_may_be_vacuumed() {
    let Some(node) = Stops::start() else { return };
    write(&node.journald, 0..100);
    node.journald.wait_for("number 99");
    node.journald.rotate();
    assert_eq!(node.read_up_to(99).0, list(0..100));
    node.journald.vacuum();
    write(&node.journald, 100..200);
    assert_eq!(node.read_up_to(199), (list(100..200), 0, 0));
}

#[test]
fn what_was_vacuumed_before_a_slow_reader_is_counted_exactly() {
    let Some(node) = Stops::start() else { return };
    write(&node.journald, 0..100);
    node.journald.wait_for("number 99");
    let (spool, reader) = open(node.folder.path());
    let mut settings = settings(node.folder.path(), &node.journald.directory());
    called(&mut settings, "slow");
    let reading = Reading::start(settings, spool.clone());
    wait_for("the first lines", || reading.counts().shipped > 100);
    let journalctl = children("slow");
    assert_eq!(journalctl.len(), 1);
    signal(journalctl[0], libc::SIGSTOP);
    // It has the file open that is there now, but knows none of those to come.
    node.journald.rotate();
    write(&node.journald, 100..400);
    node.journald.wait_for("number 399");
    node.journald.rotate();
    node.journald.vacuum();
    write(&node.journald, 400..500);
    node.journald.wait_for("number 499");
    signal(journalctl[0], libc::SIGCONT);
    let all = newest(&node.journald);
    wait_for("the last entry to be read", || {
        let place = fs::read_to_string(node.folder.path().join("spool/journal.cursor"));
        place.is_ok_and(|place| place.contains(&all))
    });
    let counts = reading.end();
    let came = numbers(&deliver(node.folder.path(), &spool, reader));
    let came: BTreeSet<_> = came.into_iter().collect();
    let missing = (0..500).filter(|number| !came.contains(number)).count() as u64;
    assert!(missing >= 300, "{missing}");
    // journald may have said something in between.
    let others = counts.lost - missing;
    assert!(counts.gaps >= 1 && others < 10, "{missing} {counts:?}");
}

#[test]
fn a_journal_that_was_rolled_back_is_read_on_from_the_time_of_its_end() {
    let Some(mut node) = Stops::start() else {
        return;
    };
    write(&node.journald, 0..100);
    node.journald.wait_for("number 99");
    node.journald.stop();
    let snapshot = node.folder.path().join("snapshot");
    copy(&node.journald.directory(), &snapshot);
    node.journald.resume();
    write(&node.journald, 100..300);
    assert_eq!(node.read_up_to(299).0, list(0..300));
    node.journald.stop();
    fs::remove_dir_all(node.journald.directory()).unwrap();
    copy(&snapshot, &node.journald.directory());
    node.journald.resume();
    // Their numbers are those of entries that were read.
    write(&node.journald, 300..400);
    let (numbers, gaps, lost) = node.read_up_to(399);
    assert_eq!(numbers, list(300..400));
    assert_eq!((gaps, lost), (1, 0));
}

fn copy(from: &Path, to: &Path) {
    let mut command = Command::new("cp");
    assert!(
        command
            .arg("-a")
            .args([from, to])
            .status()
            .unwrap()
            .success()
    );
}
