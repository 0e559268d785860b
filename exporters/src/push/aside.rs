//! Where that is kept which a receiver will never take.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value, json};

use super::{Entry, Lane};
use crate::record::{self, Attribute, Record};

/// A file with one JSON object for each entry that was refused, for people. It
/// and the one before it, with `.old` at its name's end, have up to a limit.
#[derive(Debug)]
pub struct Aside {
    path: PathBuf,
    limit: u64,
    file: Mutex<Option<File>>,
}

impl Aside {
    /// `limit`: bytes of each of the two files.
    pub fn new(path: PathBuf, limit: u64) -> Self {
        Self {
            path,
            limit,
            file: Mutex::new(None),
        }
    }

    /// The newer file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps an entry.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn keep(&self, destination: &str, entry: &Entry<'_>, why: &str) -> io::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let line = json!({
            "refused_by": destination,
            "refused_at": now.map_or(0, |now| now.as_secs()),
            "why": why,
            "entry": describe(entry),
        });
        let line = format!("{line}\n");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match file.take() {
            Some(open) => open,
            None => self.open()?,
        };
        let length = open.metadata()?.len();
        let open = if length > 0 && length + line.len() as u64 > self.limit {
            drop(open);
            fs::rename(&self.path, self.path.with_added_extension("old"))?;
            self.open()?
        } else {
            open
        };
        (&open).write_all(line.as_bytes())?;
        *file = Some(open);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        options.open(&self.path)
    }
}

fn describe(entry: &Entry<'_>) -> Value {
    match (entry.lane, record::decode(entry.bytes)) {
        (Lane::Events | Lane::Journal, Ok(record)) => line(&record),
        // Nobody reads OTLP's bytes.
        _ => json!({ "bytes": entry.bytes.len() }),
    }
}

fn line(record: &Record<'_>) -> Value {
    let attributes = record.attributes.iter().map(|(name, value)| {
        let value = match value {
            Attribute::Text(value) => json!(value),
            Attribute::Integer(value) => json!(value),
            Attribute::Float(value) => json!(value),
        };
        ((*name).to_owned(), value)
    });
    json!({
        "time_ns": record.time_ns,
        "severity": record.severity.as_str(),
        "kind": record.kind,
        "plane": record.plane,
        "unit": record.unit,
        "body": record.body,
        "attributes": attributes.collect::<Map<_, _>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(body: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let record = Record {
            body,
            kind: "journal",
            attributes: vec![("pid", Attribute::Integer(7))],
            ..Record::default()
        };
        record.encode(&mut bytes);
        bytes
    }

    #[test]
    fn an_entry_can_be_read_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let aside = Aside::new(directory.path().join("refused.jsonl"), 1 << 20);
        for (lane, bytes) in [
            (Lane::Journal, &bytes("a\nb")[..]),
            (Lane::Journal, b"\xff"),
            (Lane::Metrics, b"m"),
        ] {
            let entry = Entry { lane, bytes };
            aside.keep("loki", &entry, "too \"old\"").unwrap();
        }
        let text = fs::read_to_string(aside.path()).unwrap();
        let lines: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0]["why"], "too \"old\"");
        assert_eq!(lines[0]["entry"]["body"], "a\nb");
        assert_eq!(lines[0]["entry"]["attributes"]["pid"], 7);
        assert_eq!(lines[1]["entry"]["bytes"], 1);
        assert_eq!(lines[2]["entry"]["bytes"], 1);
    }

    #[test]
    fn files_stay_small() {
        let directory = tempfile::tempdir().unwrap();
        let aside = Aside::new(directory.path().join("refused.jsonl"), 2000);
        let body = "x".repeat(300);
        for _ in 0..50 {
            let bytes = bytes(&body);
            let entry = Entry {
                lane: Lane::Journal,
                bytes: &bytes,
            };
            aside.keep("loki", &entry, "no").unwrap();
        }
        let files = fs::read_dir(directory.path()).unwrap();
        let sizes: Vec<_> = files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(
            sizes.iter().all(|size| (400..=2000).contains(size)),
            "{sizes:?}"
        );
    }
}
