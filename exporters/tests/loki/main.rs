//! Loki: what is pushed arrives, whatever the receiver and the network do.

#[path = "../tls/authority.rs"]
mod authority;
mod contract;
mod double;
mod faults;
mod front;
mod outage;
mod secure;
mod way;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use double::{Double, Labels};
use kldtrace_exporters::{
    loki::{Auth, Format, Loki, Settings},
    push::{Destination as _, Entry, Lane, Verdict},
    record::{Attribute, Record, Severity},
};

fn settings(url: String, format: Format) -> Settings {
    Settings {
        url,
        format,
        tenant: Some("kldload".to_owned()),
        auth: Auth::None,
        node: "node-1".to_owned(),
        tls: None,
        deadline: Duration::from_secs(3),
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

fn bytes(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

async fn push(loki: &mut Loki, records: &[Record<'_>]) -> Verdict {
    let all: Vec<_> = records.iter().map(bytes).collect();
    let entries = all.iter().map(|bytes| Entry {
        lane: Lane::Events,
        bytes,
    });
    loki.send(&entries.collect::<Vec<_>>()).await
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// A slow operation as ZFS tells it.
fn slow(time_ns: u64, id: u64) -> Record<'static> {
    Record {
        time_ns,
        severity: Severity::Warn,
        kind: "zfs.slow_operation",
        unit: "postgresql@15-main.service",
        body: "fsync on rpool/pg took 141ms: zil_commit 138ms, cpu 2.00ms, runqueue 1.00ms",
        attributes: vec![
            ("event_id", Attribute::Integer(id)),
            ("pool", Attribute::Text("rpool")),
            ("dataset", Attribute::Text("rpool/pg")),
            ("op", Attribute::Text("fsync")),
            ("sync", Attribute::Text("sync")),
            ("duration_seconds", Attribute::Float(0.141)),
            ("offset_class", Attribute::Text("start")),
            ("process", Attribute::Integer(4711)),
            ("command", Attribute::Text("postgres")),
            ("bytes", Attribute::Integer(0)),
            ("zil_commit_seconds", Attribute::Float(0.138)),
            ("runqueue_seconds", Attribute::Float(0.001)),
            ("cpu_seconds", Attribute::Float(0.002)),
        ],
        ..Record::default()
    }
}

#[tokio::test]
async fn every_field_arrives_in_both_forms() {
    for format in [Format::Protobuf, Format::Json] {
        let double = Double::start();
        let mut loki = Loki::new(settings(double.url(), format)).unwrap();
        let time = now();
        let odd = Record {
            time_ns: time - 5,
            kind: "journal",
            plane: "storage",
            unit: "a\"b\\c\n.service",
            body: "line 1\nline 2 \u{1f980} \"quoted\"",
            attributes: vec![("CODE-FILE", Attribute::Text("a\tb"))],
            ..Record::default()
        };
        let records = [slow(time, 7), odd, slow(time - 9, 6)];
        assert_eq!(push(&mut loki, &records).await, Verdict::Taken);
        let stored = double.stored();
        let unit = "postgresql@15-main.service";
        let stream = labels(&[
            ("kind", "zfs.slow_operation"),
            ("node", "node-1"),
            ("unit", unit),
        ]);
        let found = &stored[&stream];
        // In the order of their times.
        assert_eq!(found[0].time_ns, i128::from(time - 9));
        assert_eq!(found[1].time_ns, i128::from(time));
        assert_eq!(found[1].line, slow(0, 0).body);
        let metadata = labels(&[
            ("level", "warn"),
            ("event_id", "7"),
            ("pool", "rpool"),
            ("dataset", "rpool/pg"),
            ("op", "fsync"),
            ("sync", "sync"),
            ("duration_seconds", "0.141"),
            ("offset_class", "start"),
            ("process", "4711"),
            ("command", "postgres"),
            ("bytes", "0"),
            ("zil_commit_seconds", "0.138"),
            ("runqueue_seconds", "0.001"),
            ("cpu_seconds", "0.002"),
        ]);
        assert_eq!(found[1].metadata, metadata);
        let stream = labels(&[
            ("kind", "journal"),
            ("node", "node-1"),
            ("plane", "storage"),
            ("unit", "a\"b\\c\n.service"),
        ]);
        let found = &stored[&stream][0];
        assert_eq!(found.line, "line 1\nline 2 \u{1f980} \"quoted\"");
        assert_eq!(found.metadata["CODE_FILE"], "a\tb");
        let head = double.heads()[0].to_ascii_lowercase();
        assert!(head.contains("x-scope-orgid: kldload\r\n"), "{head}");
    }
}

/// The goal is a count of bytes, so it can be asserted.
#[tokio::test]
async fn a_push_is_at_most_a_quarter_of_its_json() {
    let double = Double::start();
    let mut loki = Loki::new(settings(double.url(), Format::Protobuf)).unwrap();
    let time = now();
    let records: Vec<_> = (0..1000).map(|id| slow(time + id * 77_777, id)).collect();
    assert_eq!(push(&mut loki, &records).await, Verdict::Taken);
    let json: usize = double
        .stored()
        .values()
        .flatten()
        .map(|one| {
            let value = [one.time_ns.to_string(), one.line.clone()];
            serde_json::to_string(&value).unwrap().len()
                + serde_json::to_string(&one.metadata).unwrap().len()
        })
        .sum();
    let sent = double.body_bytes();
    println!("{} bytes an event, {} as JSON", sent / 1000, json / 1000);
    assert!(sent * 4 <= json, "{sent} of {json}");
}

#[tokio::test]
async fn a_clock_that_jumps_back_loses_nothing() {
    let double = Double::start();
    let mut loki = Loki::new(settings(double.url(), Format::Protobuf)).unwrap();
    let time = now();
    assert_eq!(push(&mut loki, &[slow(time, 1)]).await, Verdict::Taken);
    let before = time - 2 * 3_600_000_000_000;
    assert_eq!(
        push(&mut loki, &[slow(before, 2), slow(before + 1, 3)]).await,
        Verdict::Taken
    );
    let stored = double.stored().into_values().next().unwrap();
    assert_eq!(stored.len(), 3);
    for late in &stored[1..] {
        assert!(late.time_ns > i128::from(time));
        assert!(late.metadata.contains_key("time"), "{late:?}");
    }
    assert!(!stored[0].metadata.contains_key("time"));
}

#[tokio::test]
async fn a_line_that_is_too_long_is_cut_and_says_so() {
    let double = Double::start();
    let mut loki = Loki::new(settings(double.url(), Format::Protobuf)).unwrap();
    let body = "é".repeat(200_000);
    let record = Record {
        time_ns: now(),
        kind: "journal",
        body: &body,
        ..Record::default()
    };
    assert_eq!(push(&mut loki, &[record]).await, Verdict::Taken);
    let stored = double.stored().into_values().next().unwrap();
    let cut: usize = stored[0].metadata["truncated_bytes"].parse().unwrap();
    assert!(body.starts_with(&stored[0].line));
    assert_eq!(stored[0].line.len() + cut, 400_000);
}
