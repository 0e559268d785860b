//! A node that is made up: series for what this kernel does not serve, by the
//! names and labels of the catalogue, in the formats of the daemon. Its numbers
//! mean nothing; they are there so that queries have something to find.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use kldtrace::catalogue::{Exported, exported};
use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Series, Unit, Value},
    prometheus::{encode, negotiate},
};

/// Label sets for each family.
const SETS: usize = 12;
/// Values for labels that come from closed sets. Others are named after their
/// label and a number.
const CLOSED: &[(&str, &[&str])] = &[
    ("op", &["read", "write", "fsync"]),
    ("stage", &["zil_commit", "cpu", "arc_miss", "throttle"]),
    ("type", &["read", "write"]),
    ("phase", &["open", "sync"]),
    ("role", &["initiator", "responder"]),
    ("direction", &["sent", "received"]),
    ("state", &["ONLINE", "DEGRADED"]),
    ("log", &["main", "slog"]),
    ("sync", &["sync", "async"]),
    ("content", &["data", "metadata"]),
    ("access", &["demand", "prefetch"]),
    ("verdict", &["pass", "drop", "would_drop", "limited"]),
    ("mode", &["native", "generic"]),
    ("age", &["recent", "older"]),
];

/// Serves `/metrics` to every request until the test program ends.
pub struct Synthetic {
    /// Where it listens.
    pub port: u16,
    /// The metrics that it has, by their exported names.
    pub metrics: BTreeSet<String>,
}

impl Synthetic {
    /// One that has every metric of the catalogue but these. `hostile` is the
    /// value of one of each label that people choose.
    pub fn without(there: &BTreeSet<String>, hostile: &str) -> Self {
        let missing: Vec<_> = exported()
            .filter(|family| !there.contains(&family.name()))
            .collect();
        let metrics = missing.iter().map(Exported::name).collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let hostile = hostile.to_owned();
        let scrapes = Arc::new(AtomicU64::new(0));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let n = scrapes.fetch_add(1, SeqCst) + 1;
                // A scraper that is gone is no matter.
                let _ = answer(&stream, &missing, &hostile, n);
            }
        });
        Self { port, metrics }
    }
}

fn answer(stream: &TcpStream, missing: &[Exported], hostile: &str, n: u64) -> std::io::Result<()> {
    let mut accept = None;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("accept")
        {
            accept = Some(value.to_owned());
        }
    }
    let format = negotiate(accept.as_deref());
    let families: Vec<_> = missing.iter().map(|one| family(one, hostile, n)).collect();
    let body = encode(format, &families);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        format.content_type(),
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body)
}

fn family(exported: &Exported, hostile: &str, n: u64) -> Family {
    let sets = if exported.labels.is_empty() { 1 } else { SETS };
    let mut seen = BTreeSet::new();
    let mut series = Vec::new();
    for set in 0..sets {
        let values: Vec<_> = exported
            .labels
            .iter()
            .map(|label| value(exported, label, set, hostile))
            .collect();
        if seen.insert(values.clone()) {
            let names = exported.labels.iter().map(|&label| label.into());
            series.push(Series {
                labels: names
                    .zip(values.iter().map(|one| Arc::from(&**one)))
                    .collect(),
                value: number(exported, set as u64, n),
            });
        }
    }
    Family {
        name: exported.metric.into(),
        help: exported.help.into(),
        kind: exported.kind,
        unit: exported.unit,
        series,
    }
}

fn value(exported: &Exported, label: &str, set: usize, hostile: &str) -> String {
    // What a result or a reason may be is said by the queries that ask for one.
    let results: &[&str] = match exported.signal.name {
        "zfs.transactions" => &["assigned", "dirty_throttle"],
        _ => &["hit", "miss", "iohit"],
    };
    let closed = CLOSED.iter().find(|(name, _)| *name == label);
    match (label, closed) {
        ("result", _) => results[set % results.len()].to_owned(),
        (_, Some((_, values))) => values[set % values.len()].to_owned(),
        ("dataset" | "peer" | "plane" | "unit", _) if set % 3 == 2 => hostile.to_owned(),
        // Without a name: a label that is empty.
        ("peer" | "unit", _) if set % 3 == 1 => String::new(),
        _ => format!("{label}-{}", set % 2),
    }
}

fn number(exported: &Exported, set: u64, n: u64) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    match exported.kind {
        Kind::Histogram => {
            // From 8 ms on, a bucket more for each set.
            let first = -56 + i32::try_from(set).unwrap();
            Value::Histogram(Histogram {
                sum_ns: n * 100_000_000,
                zero: 0,
                buckets: vec![(first, 6 * n), (first + 8, 3 * n), (first + 20, n)],
                overflow: 0,
                exemplars: Vec::new(),
            })
        }
        Kind::Counter if exported.unit == Unit::Seconds => Value::Float(0.01 * n as f64),
        Kind::Counter => Value::Integer((set + 1) * n),
        Kind::Gauge if exported.metric.ends_with("timestamp_seconds") => {
            Value::Integer(now.as_secs() - 30 * set)
        }
        Kind::Gauge if exported.unit == Unit::Bytes => Value::Integer((set + 1) << 30),
        Kind::Gauge => Value::Integer(1),
    }
}
