//! What ends and begins again: journalctl, journald, the source, the disk.

use std::{fs, os::unix::fs::symlink};

use kldtrace_exporters::journal::Since;

use super::{
    Journald, Node, Reading, called, children, crafted, deliver, in_place, journald::wait_for,
    list, numbers, open, settings, signal, write,
};

#[test]
fn journalctl_is_started_again_whatever_ends_it() {
    let name = "again";
    let Some(node) = Node::start(|settings| called(settings, name)) else {
        return;
    };
    let mut next = 0;
    // Not SIGINT: what a shell starts in the background ignores that, and so do
    // its children.
    for kill in [libc::SIGKILL, libc::SIGTERM, libc::SIGUSR1] {
        write(&node.journald, next..next + 500);
        next += 500;
        wait_for("journalctl to run", || children(name).len() == 1);
        let running = children(name)[0];
        signal(running, kill);
        write(&node.journald, next..next + 500);
        next += 500;
        wait_for("another journalctl", || {
            let now = children(name);
            now.len() == 1 && now[0] != running && node.reading.counts().reading
        });
    }
    node.read_up_to(&format!("number {}", next - 1));
    let (stored, counts, _journald) = node.end();
    assert_eq!(numbers(&stored), list(0..next));
    assert_eq!((counts.restarts, counts.gaps, counts.lost), (3, 0, 0));
    assert!(!counts.reading);
    assert!(children(name).is_empty());
}

#[test]
fn journald_may_end_and_be_killed() {
    let Some(mut node) = Node::start(|_| ()) else {
        return;
    };
    write(&node.journald, 0..500);
    node.journald.wait_for("number 499");
    // It takes the file that was not closed for damaged, and begins another.
    node.journald.kill();
    node.journald.resume();
    write(&node.journald, 500..1000);
    node.journald.wait_for("number 999");
    node.journald.stop();
    node.journald.resume();
    write(&node.journald, 1000..1500);
    node.read_up_to("number 1499");
    let (stored, counts, _journald) = node.end();
    assert_eq!(numbers(&stored), list(0..1500));
    assert_eq!((counts.gaps, counts.lost, counts.restarts), (0, 0, 0));
}

#[test]
fn the_next_source_goes_on_where_the_last_one_ended() {
    const TURNS: u64 = 10;
    let Some(journald) = Journald::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (mut all, mut shipped) = (Vec::new(), 0);
    for turn in 0..TURNS {
        // Before, while and after it runs.
        let from = turn * 300;
        write(&journald, from..from + 100);
        let (spool, reader) = open(folder.path());
        let settings = in_place(folder.path(), &journald);
        let reading = Reading::start(settings, spool.clone());
        write(&journald, from + 100..from + 200);
        let wanted = if turn + 1 == TURNS {
            journald.wait_for(&format!("number {}", from + 199));
            journald.entries() - shipped
        } else {
            1
        };
        wait_for("lines", || reading.counts().shipped >= wanted);
        let counts = reading.end();
        assert_eq!((counts.gaps, counts.lost, counts.restarts), (0, 0, 0));
        shipped += counts.shipped;
        all.extend(numbers(&deliver(folder.path(), &spool, reader)));
        write(&journald, from + 200..from + 300);
    }
    assert_eq!(all, list(0..TURNS * 300 - 100));
}

#[test]
fn now_begins_with_what_comes_next_and_is_kept_from_then_on() {
    let Some(journald) = Journald::start() else {
        return;
    };
    write(&journald, 0..100);
    journald.wait_for("number 99");
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let (spool, reader) = open(folder.path());
        let mut settings = settings(folder.path(), &journald.directory());
        settings.since = Since::Now;
        (Reading::start(settings, spool.clone()), spool, reader)
    };
    let (reading, ..) = start();
    wait_for("journalctl to run", || reading.counts().reading);
    assert_eq!(reading.end().read(), 0);
    // While nobody reads.
    write(&journald, 100..200);
    let (reading, spool, reader) = start();
    wait_for("the lines", || reading.counts().shipped == 100);
    reading.end();
    let stored = deliver(folder.path(), &spool, reader);
    assert_eq!(numbers(&stored), list(100..200));
}

#[test]
fn entries_that_move_from_run_to_var_come_once() {
    for restarted in [false, true] {
        let Some(journald) = Journald::before_flush() else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let (spool, reader) = open(folder.path());
            let settings = in_place(folder.path(), &journald);
            (Reading::start(settings, spool.clone()), spool, reader)
        };
        write(&journald, 0..200);
        let mut running = start();
        wait_for("the first lines", || running.0.counts().shipped > 200);
        let mut before = 0;
        if restarted {
            before = running.0.end().shipped;
            drop((running.1, running.2));
            journald.flush();
            running = start();
        } else {
            journald.flush();
        }
        let (reading, spool, reader) = running;
        write(&journald, 200..400);
        journald.wait_for("number 399");
        wait_for("the others", || {
            before + reading.counts().shipped >= journald.entries() && !reading.counts().behind
        });
        let counts = reading.end();
        assert_eq!((counts.gaps, counts.lost, counts.restarts), (0, 0, 0));
        let stored = deliver(folder.path(), &spool, reader);
        assert_eq!(numbers(&stored), list(0..400), "restarted: {restarted}");
    }
}

#[test]
fn other_boots_are_read_unless_only_this_one_is_wanted() {
    let start = crafted::now() - 60 * crafted::SECOND;
    let entry = |number: u64, boot| {
        let mut entry = crafted::line(start + number, "a.service", &format!("number {number}"));
        entry.boot = boot;
        entry
    };
    let before: Vec<_> = (0..10).map(|number| entry(number, 7)).collect();
    let Some(journal) = crafted::journal(&before) else {
        return;
    };
    let Some(journald) = Journald::start() else {
        return;
    };
    let other = journal.path().join("system.journal");
    fs::copy(other, journald.directory().join("before.journal")).unwrap();
    write(&journald, 10..20);
    journald.wait_for("number 19");
    for (since, expected) in [(Since::Oldest, 0..20), (Since::Boot, 10..20)] {
        let folder = tempfile::tempdir().unwrap();
        let (spool, reader) = open(folder.path());
        let mut settings = settings(folder.path(), &journald.directory());
        settings.since = since;
        let reading = Reading::start(settings, spool.clone());
        let length = expected.end - expected.start;
        wait_for("the lines", || {
            reading.counts().shipped > length && !reading.counts().behind
        });
        reading.end();
        let stored = deliver(folder.path(), &spool, reader);
        assert_eq!(numbers(&stored), list(expected));
    }
}

#[test]
fn without_journalctl_it_waits_for_one() {
    let Some(journald) = Journald::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("journalctl");
    write(&journald, 0..10);
    let (spool, reader) = open(folder.path());
    let mut settings = settings(folder.path(), &journald.directory());
    settings.program = program.clone();
    let reading = Reading::start(settings, spool.clone());
    wait_for("two tries", || reading.counts().restarts == 2);
    assert!(!reading.counts().reading);
    symlink("/usr/bin/journalctl", &program).unwrap();
    wait_for("the lines", || {
        reading.counts().shipped > 10 && !reading.counts().behind
    });
    reading.end();
    let stored = deliver(folder.path(), &spool, reader);
    assert_eq!(numbers(&stored), list(0..10));
}
