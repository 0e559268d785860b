//! SIGKILL of the process that reads the journal, under load.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use kldtrace_exporters::{record, spool::Batch};

use super::{Journald, Reading, is_named, journald, journald::wait_for, open, settings};

/// Tells the child where the spool is, and the journal.
const FOLDER: &str = "KLDTRACE_TEST_FOLDER";
const JOURNAL: &str = "KLDTRACE_TEST_JOURNAL";

/// Not a test: what the child does until it is killed.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let journal = std::env::var_os(JOURNAL).unwrap();
    let (spool, _reader) = open(Path::new(&folder));
    let settings = settings(Path::new(&folder), Path::new(&journal));
    let reading = Reading::start(settings, spool);
    loop {
        // Kept for when something goes wrong.
        eprintln!("{:?}", reading.counts());
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn nothing_is_missing_after_thirty_kills_and_no_more_than_a_batch_comes_twice() {
    let Some(journald) = Journald::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (written, stop) = (
        Arc::new(AtomicU64::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let writer = {
        let (written, stop, socket) = (written.clone(), stop.clone(), journald.socket());
        thread::spawn(move || {
            while !stop.load(Relaxed) {
                for _ in 0..20 {
                    let number = written.fetch_add(1, Relaxed);
                    let line = format!("number {number}");
                    journald::send(&socket, &[("MESSAGE", line.as_bytes())]);
                }
                thread::sleep(Duration::from_millis(2));
            }
        })
    };
    let program = std::env::current_exe().unwrap();
    let start = || {
        let mut command = Command::new(&program);
        command
            .args(["--exact", "killed::child", "--nocapture"])
            .env(FOLDER, folder.path())
            .env(JOURNAL, journald.directory())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).unwrap());
        command.spawn().unwrap()
    };
    let mut killed = 0;
    for round in 0_u64..30 {
        let mut child = start();
        let journalctl = || {
            let tasks = format!("/proc/{}/task", child.id());
            let lists = fs::read_dir(tasks).unwrap().flatten();
            let lists = lists.filter_map(|t| fs::read_to_string(t.path().join("children")).ok());
            let all: String = lists.map(|list| list + " ").collect();
            let mut pids = all
                .split_whitespace()
                .map(|pid| pid.parse::<u32>().unwrap());
            pids.find(|pid| is_named(*pid, "journalctl"))
        };
        wait_for("journalctl to run", || journalctl().is_some());
        thread::sleep(Duration::from_millis(round * 37 % 250));
        let orphan = journalctl();
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        killed += 1;
        if let Some(orphan) = orphan {
            wait_for("journalctl to end by itself", || !runs(orphan));
        }
    }
    stop.store(true, Relaxed);
    writer.join().unwrap();
    let written = written.load(Relaxed);
    journald.wait_for(&format!("number {}", written - 1));

    // What is left, in peace.
    let (spool, mut reader) = open(folder.path());
    let reading = Reading::start(settings(folder.path(), &journald.directory()), spool);
    let last = format!("number {}", written - 1);
    let (mut next, mut again, mut most) = (0, 0, 0);
    let mut before = None;
    let mut batch = Batch::default();
    wait_for("the last line", || {
        reader.read(1 << 20, &mut batch).unwrap();
        for entry in batch.entries() {
            let record = record::decode(entry.bytes).unwrap();
            let Some(number) = record.body.strip_prefix("number ") else {
                continue;
            };
            let number: u64 = number.parse().unwrap();
            // Each kill begins anew what comes twice.
            if before
                .replace(number)
                .is_some_and(|before| number <= before)
            {
                again = 0;
            }
            if number < next {
                again += entry.bytes.len();
                most = most.max(again);
                continue;
            }
            assert_eq!(number, next, "missing");
            next = number + 1;
        }
        let done = batch
            .entries()
            .any(|entry| record::decode(entry.bytes).is_ok_and(|record| record.body == last));
        reader.acknowledge();
        done
    });
    let counts = reading.end();
    assert_eq!((counts.gaps, counts.lost, counts.cursor_resets), (0, 0, 0));
    println!("{killed} kills, {written} lines, at most {most} bytes again");
    // A full batch.
    assert!(most <= 513 << 10, "{most}");
}

fn runs(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}
