//! The journal: what a real journald wrote arrives, whatever happens to it, to
//! journalctl and to us.

mod crafted;
mod disk;
#[path = "../loki/double.rs"]
#[expect(dead_code, reason = "what the tests of Loki itself ask")]
mod double;
mod journald;
mod killed;
mod lines;
mod missing;
mod restarts;
mod rules;

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use double::{Double, Stored};
use journald::{Journald, wait_for};
use kldtrace_exporters::{
    journal::{Counters, Counts, Settings, Since, Source, fields, filter, redact},
    loki::{self, Loki},
    push::{self, Aside, Delivery, Lane},
    spool::{self, Spool},
};
use tempfile::TempDir;
use tokio::sync::watch;

/// Where the spool, and beside it the place in the journal, are.
fn open(folder: &Path) -> (Spool, spool::Reader) {
    let settings = spool::Settings {
        directory: folder.join("spool"),
        bytes: 256 << 20,
        sync: Some(Duration::from_secs(1)),
    };
    let (spool, readers) = Spool::open(settings, &[("loki", &[Lane::Journal])]).unwrap();
    (spool, readers.into_iter().next().unwrap())
}

/// All of a journal, from its oldest entry on.
fn settings(folder: &Path, directory: &Path) -> Settings {
    Settings {
        program: "journalctl".into(),
        directory: Some(directory.to_owned()),
        since: Since::Oldest,
        place: folder.join("spool/journal.cursor"),
        host: "node-1".to_owned(),
        own: None,
        filter: filter::Settings::default(),
        limit: None,
        redact: redact::Settings::default(),
        line: fields::BODY,
        age: Duration::from_millis(20),
    }
}

/// The same of this journald's, where a node has it.
fn in_place(folder: &Path, journald: &Journald) -> Settings {
    Settings {
        program: journald.journalctl(),
        directory: None,
        ..settings(folder, Path::new(""))
    }
}

/// A source that runs, and its spool.
struct Reading {
    counters: Arc<Counters>,
    spool: Spool,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Reading {
    fn start(settings: Settings, spool: Spool) -> Self {
        let counters = Arc::new(Counters::default());
        let source = Source::new(settings, spool.clone(), counters.clone()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let thread = thread::spawn(move || block_on(source.run(stopped)));
        Self {
            counters,
            spool,
            stop,
            thread,
        }
    }

    fn counts(&self) -> Counts {
        self.counters.read()
    }

    /// Lets it end, and waits for it.
    fn end(self) -> Counts {
        self.stop.send_replace(true);
        self.thread.join().unwrap();
        self.counters.read()
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().unwrap().block_on(work)
}

/// What a Loki gets of a spool.
fn deliver(folder: &Path, spool: &Spool, reader: spool::Reader) -> Vec<Stored> {
    let double = Double::start();
    let settings = loki::Settings {
        url: double.url(),
        format: loki::Format::Protobuf,
        tenant: None,
        auth: loki::Auth::None,
        node: "node-1".to_owned(),
        tls: None,
        deadline: Duration::from_secs(3),
    };
    let delivery = Delivery {
        name: "loki",
        reader,
        destination: Loki::new(settings).unwrap(),
        settings: push::Settings {
            bytes: 256 << 10,
            age: Duration::from_millis(10),
            longest_wait: Duration::from_secs(1),
        },
        counters: Arc::default(),
        aside: Arc::new(Aside::new(folder.join("refused.jsonl"), 1 << 20)),
    };
    // It ends when all that is there is taken.
    let (_stop, stopped) = watch::channel(true);
    block_on(delivery.run(stopped, Duration::from_mins(1)));
    assert_eq!(spool.statistics().readers[0].1.waiting, 0);
    assert!(!folder.join("refused.jsonl").exists());
    assert_eq!(double.repeated(), 0);
    double.stored().into_values().flatten().collect()
}

/// A journal with a source that reads it.
struct Node {
    journald: Journald,
    folder: TempDir,
    reading: Reading,
    reader: spool::Reader,
}

impl Node {
    /// `change`: of the settings. `None`: there is no journald here.
    fn start(change: impl FnOnce(&mut Settings)) -> Option<Self> {
        let journald = Journald::start()?;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = settings(folder.path(), &journald.directory());
        change(&mut settings);
        let (spool, reader) = open(folder.path());
        Some(Self {
            journald,
            reading: Reading::start(settings, spool),
            folder,
            reader,
        })
    }

    /// Waits until all up to this line, and what is there behind it, is read
    /// and in the spool.
    #[track_caller]
    fn read_up_to(&self, line: &str) {
        self.journald.wait_for(line);
        let entries = self.journald.entries();
        wait_for(&format!("{entries} entries to be read"), || {
            let counts = self.reading.counts();
            counts.read() >= entries && !counts.behind
        });
    }

    /// Lets it end, and gives what Loki got, and the counts. The journal lives
    /// on.
    fn end(self) -> (Vec<Stored>, Counts, Journald) {
        let spool = self.reading.spool.clone();
        let counts = self.reading.end();
        let stored = deliver(self.folder.path(), &spool, self.reader);
        (stored, counts, self.journald)
    }
}

/// Writes numbered lines.
fn write(journald: &Journald, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        journald.send(&[("MESSAGE", format!("number {number}").as_bytes())]);
    }
}

fn list(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.collect()
}

/// The numbers among lines, in the order of their times.
fn numbers(stored: &[Stored]) -> Vec<u64> {
    let mut stored: Vec<_> = stored.iter().collect();
    stored.sort_by_key(|one| one.time_ns);
    let number = |one: &&Stored| one.line.strip_prefix("number ")?.parse().ok();
    stored.iter().filter_map(number).collect()
}

/// Gives journalctl another name, so that it is told from those of other tests.
fn called(settings: &mut Settings, name: &str) {
    let folder = settings.place.ancestors().nth(2).unwrap();
    settings.program = folder.join(name);
    symlink("/usr/bin/journalctl", &settings.program).unwrap();
}

/// Our children of this name, also those that have ended and nobody waited for.
fn children(name: &str) -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let all: String = lists.map(|list| list + " ").collect();
    let pids = all.split_whitespace().map(|pid| pid.parse().unwrap());
    pids.filter(|pid| is_named(*pid, name)).collect()
}

fn is_named(pid: u32, name: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a child that is not yet waited for.
    unsafe { libc::kill(pid.cast_signed(), signal) };
}
