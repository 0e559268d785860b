//! Journals of entries as a test wants them: other times, units and boots than
//! a journald would give. systemd-journal-remote writes them.

use std::{
    fmt::Write as _,
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

use super::{Reading, deliver, double::Stored, journald::wait_for, open, settings};
use kldtrace_exporters::journal::{Counts, Settings};

/// Debian's and Red Hat's place of it.
const PROGRAM: &str = "/usr/lib/systemd/systemd-journal-remote";

pub const SECOND: u64 = 1_000_000;

/// An entry, whose time is in microseconds since 1970.
#[derive(Clone)]
pub struct Entry {
    pub time_us: u64,
    pub boot: u8,
    pub fields: Vec<(&'static str, String)>,
}

/// Microseconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_micros() as u64
}

/// A line of a unit.
pub fn line(time_us: u64, unit: &str, message: &str) -> Entry {
    let fields = [("_SYSTEMD_UNIT", unit), ("MESSAGE", message)];
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
    Entry {
        time_us,
        boot: 1,
        fields: fields
            .map(|(name, value)| (name, value.to_owned()))
            .collect(),
    }
}

impl Entry {
    pub fn with(mut self, name: &'static str, value: &str) -> Self {
        self.fields.push((name, value.to_owned()));
        self
    }
}

/// A folder with a journal of these entries; `None`, and a line that says so,
/// where nothing can write it.
pub fn journal(entries: &[Entry]) -> Option<TempDir> {
    if !Path::new(PROGRAM).exists() {
        println!("skipped: no systemd-journal-remote");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (number, entry) in entries.iter().enumerate() {
        let Entry { time_us, boot, .. } = entry;
        let boot = format!("{boot:02x}").repeat(16);
        write!(
            text,
            "__REALTIME_TIMESTAMP={time_us}\n__MONOTONIC_TIMESTAMP={}\n_BOOT_ID={boot}\n",
            1000 + number
        )
        .unwrap();
        for (name, value) in &entry.fields {
            writeln!(text, "{name}={value}").unwrap();
        }
        text.push('\n');
    }
    let export = folder.path().join("export");
    std::fs::write(&export, text).unwrap();
    let status = Command::new(PROGRAM)
        .arg("--output")
        .arg(folder.path().join("system.journal"))
        .arg("-")
        .stdin(File::open(&export).unwrap())
        .stderr(Stdio::null())
        .status();
    assert!(status.unwrap().success());
    Some(folder)
}

/// What Loki gets of such a journal, in the order of its times, and the counts.
pub fn ship(
    entries: &[Entry],
    change: impl FnOnce(&mut Settings),
) -> Option<(Vec<Stored>, Counts)> {
    let journal = journal(entries)?;
    let folder = tempfile::tempdir().unwrap();
    let mut settings = settings(folder.path(), journal.path());
    change(&mut settings);
    let (spool, reader) = open(folder.path());
    let reading = Reading::start(settings, spool.clone());
    wait_for("all entries", || {
        reading.counts().read() == entries.len() as u64 && !reading.counts().behind
    });
    let counts = reading.end();
    let mut stored = deliver(folder.path(), &spool, reader);
    stored.sort_by_key(|one| one.time_ns);
    Some((stored, counts))
}
