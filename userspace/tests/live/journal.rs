//! The journal that the daemon pushes: a real journald's, into a Loki that
//! counts for itself.

use std::{fs, path::Path};

use super::{
    common::{Daemon, Snapshot, wait_for},
    double::{Double, Stored},
    journald::Journald,
};

fn configuration(folder: &Path, journald: &Journald, loki: &Double) -> String {
    format!(
        "[node]\nname = \"node-1\"\n[signals]\nenable = [\"self.*\"]\n\
         [spool]\ndirectory = \"{}\"\nsize = \"8MiB\"\n\
         [loki]\nurl = \"{}\"\nbatch_age = \"10ms\"\n\
         [journal]\nenabled = true\nsince = \"oldest\"\ndirectory = \"{}\"\n\
         exclude_identifiers = [\"noise\"]\nrate = 1\nburst = 500\nline_size = \"1KiB\"\n",
        folder.join("spool").display(),
        loki.url(),
        journald.directory().display(),
    )
}

fn entries(now: &Snapshot, result: &str) -> u64 {
    now.integer("kldtrace_journal_entries", &[("result", result)])
}

fn faults(now: &Snapshot, reason: &str) -> u64 {
    now.integer("kldtrace_journal_faults", &[("reason", reason)])
}

/// Waits until the daemon has read all of the journal, and Loki has it.
#[track_caller]
fn settle(daemon: &Daemon, wanted: u64) -> Snapshot {
    let mut last = None;
    wait_for("all of the journal to be pushed", || {
        let now = daemon.families("self");
        let read = now.integer("kldtrace_journal_entries", &[]);
        let idle = now.float("kldtrace_journal_lag_seconds", &[]) == 0.0;
        let waiting = now.integer("kldtrace_push_waiting", &[]);
        let done = read >= wanted && idle && waiting == 0;
        last = Some(now);
        done
    });
    last.unwrap()
}

/// Lines of a kind.
fn stored(loki: &Double, kind: &str) -> Vec<Stored> {
    let streams = loki.stored().into_iter();
    let streams =
        streams.filter(|(labels, _)| labels["kind"] == kind && labels["node"] == "node-1");
    streams.flat_map(|(_, entries)| entries).collect()
}

fn write(journald: &Journald, from: u64, to: u64) {
    for number in from..to {
        journald.send(&[("MESSAGE", format!("number {number}").as_bytes())]);
    }
    journald.wait_for(&format!("number {}", to - 1));
}

/// Whether each of these lines is there once.
fn has(lines: &[Stored], from: u64, to: u64) -> bool {
    (from..to).all(|number| {
        let line = format!("number {number}");
        lines.iter().filter(|one| one.line == line).count() == 1
    })
}

#[test]
fn the_journal_is_pushed_across_restarts_and_what_is_left_out_is_counted() {
    let Some(journald) = Journald::start() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let loki = Double::start();
    let configuration = configuration(folder.path(), &journald, &loki);
    for _ in 0..7 {
        journald.send(&[("MESSAGE", b"x"), ("SYSLOG_IDENTIFIER", b"noise")]);
    }
    journald.send(&[("MESSAGE", b"password=s3cr3t")]);
    journald.send(&[("MESSAGE", &[b'y'; 2000])]);
    write(&journald, 0, 100);
    let Some(mut daemon) = Daemon::start(&configuration) else {
        return;
    };
    let now = settle(&daemon, journald.entries());
    assert_eq!(entries(&now, "filtered"), 7);
    assert_eq!(entries(&now, "shipped"), journald.entries() - 7);
    for result in ["rate_limited", "own", "unreadable"] {
        assert_eq!(entries(&now, result), 0, "{result}");
    }
    for change in ["redacted", "cut"] {
        let changed = now.integer("kldtrace_journal_changed", &[("change", change)]);
        assert_eq!(changed, 1, "{change}");
    }
    let lines = stored(&loki, "journal");
    assert_eq!(lines.len() as u64, entries(&now, "shipped"));
    assert!(has(&lines, 0, 100));
    assert!(lines.iter().any(|one| one.line == "password=[redacted]"));
    assert_eq!(now.integer("kldtrace_journal_reading", &[]), 1);
    let newest = now.float("kldtrace_journal_newest_timestamp_seconds", &[]);
    let last = lines.iter().map(|one| one.time_ns).max().unwrap();
    assert!((last as f64 / 1e9 - newest).abs() < 1e-3, "{last} {newest}");

    // A flood: what is left out is told in lines of their own.
    write(&journald, 1000, 3000);
    let now = settle(&daemon, journald.entries());
    let (shipped, limited) = (entries(&now, "shipped"), entries(&now, "rate_limited"));
    assert_eq!(shipped + limited + 7, journald.entries());
    assert!(limited >= 1000, "{limited}");
    assert_eq!(stored(&loki, "journal").len() as u64, shipped);
    let words = stored(&loki, "journal.left_out");
    let told = words
        .iter()
        .map(|one| one.metadata["lines"].parse::<u64>().unwrap());
    assert_eq!(told.sum::<u64>(), limited);

    journalctl_ends(&daemon);
    lag_shows(&daemon, &journald);
    let now = settle(&daemon, journald.entries());
    assert_eq!(faults(&now, "journalctl"), 1);
    for reason in ["output", "spool", "place_kept", "place_read"] {
        assert_eq!(faults(&now, reason), 0, "{reason}");
    }

    // It dies, the journal goes on, and is vacuumed up to a point.
    let read = journald.entries();
    daemon.signal(libc::SIGKILL);
    daemon.child.wait().unwrap();
    write(&journald, 4000, 4100);
    journald.rotate();
    let all = journald.entries();
    journald.vacuum();
    let gone = all - journald.entries();
    write(&journald, 5000, 5100);
    let Some(daemon) = Daemon::start(&configuration) else {
        return;
    };
    let now = settle(&daemon, journald.entries());
    assert_eq!(now.integer("kldtrace_journal_gaps", &[]), 1);
    assert_eq!(now.integer("kldtrace_journal_lost", &[]), gone - read);
    assert!(has(&stored(&loki, "journal"), 5000, 5100));
    assert_eq!(now.integer("kldtrace_push_lost", &[]), 0);
}

/// journalctl is killed, and started again.
fn journalctl_ends(daemon: &Daemon) {
    let reading = || {
        daemon
            .families("self")
            .integer("kldtrace_journal_reading", &[])
    };
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.child.id())).unwrap();
    let lists = tasks.flatten().map(|task| task.path().join("children"));
    let all: String = lists
        .map(|list| fs::read_to_string(list).unwrap())
        .collect();
    let child: i32 = all.trim().parse().expect("journalctl alone");
    // SAFETY: the daemon has not waited for its child.
    unsafe { libc::kill(child, libc::SIGKILL) };
    wait_for("nobody to read", || reading() == 0);
    wait_for("journalctl to run again", || reading() == 1);
}

/// A line that is read and waits for others is behind.
fn lag_shows(daemon: &Daemon, journald: &Journald) {
    journald.send(&[("MESSAGE", b"late")]);
    wait_for("a lag", || {
        daemon
            .families("self")
            .float("kldtrace_journal_lag_seconds", &[])
            > 0.0
    });
}
