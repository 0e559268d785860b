//! OTLP seen from outside: a receiver of the tests' own by gRPC and HTTP, and
//! a real one.

// The numbers must come back as they went.
#![allow(clippy::float_cmp)]

mod answers;
#[path = "../tls/authority.rs"]
#[allow(dead_code, reason = "the tests of TLS use more of it")]
mod authority;
mod delivery;
mod headers;
mod histograms;
mod logs;
mod metrics;
mod mutual;
mod names;
mod receiver;
mod rotel;
mod spans;
#[path = "../prometheus/strategy.rs"]
mod strategy;
mod translator;

use std::time::Duration;

use kldtrace_exporters::{
    model::Family,
    otlp::{
        Compression, Node, Otlp, Protocol, Resource, Settings, Signals,
        metrics::{MAX_BYTES, Times, requests},
    },
    push::{Auth, Destination as _, Entry, Lane, Verdict},
    record::{Attribute, Record, Severity, Span},
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};

const PROTOCOLS: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];
/// When counting began, and when it was read: nanoseconds since 1970.
const TIMES: Times = Times {
    start_ns: 1_700_000_000_000_000_001,
    now_ns: 1_700_000_060_000_000_002,
};

fn resource() -> Resource {
    Resource::new(&Node {
        version: "1.2.3",
        instance: "node-1",
        host: "node-1",
        arch: "x86_64",
        kernel: "6.12.9-amd64",
    })
}

fn settings(endpoint: String, protocol: Protocol) -> Settings {
    Settings {
        endpoint,
        protocol,
        auth: Auth::None,
        headers: Vec::new(),
        compression: Compression::Gzip,
        tls: None,
        deadline: Duration::from_secs(5),
        signals: Signals {
            logs: true,
            metrics: true,
            traces: true,
        },
    }
}

fn otlp(endpoint: String, protocol: Protocol) -> Otlp {
    Otlp::new(&settings(endpoint, protocol), resource()).unwrap()
}

fn bytes(record: &Record<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// Pushes events.
async fn push(otlp: &mut Otlp, records: &[Record<'_>]) -> Verdict {
    let all: Vec<_> = records.iter().map(bytes).collect();
    let entries = all.iter().map(|bytes| Entry {
        lane: Lane::Events,
        bytes,
    });
    otlp.send(&entries.collect::<Vec<_>>()).await
}

/// Pushes metrics.
async fn push_metrics(otlp: &mut Otlp, families: &[Family]) -> Verdict {
    let requests = requests(families, &resource(), TIMES, MAX_BYTES);
    let entries = requests.iter().map(|bytes| Entry {
        lane: Lane::Metrics,
        bytes,
    });
    otlp.send(&entries.collect::<Vec<_>>()).await
}

/// When the slow operation of number 0 ended.
const ENDED: u64 = 1_700_000_000_123_456_789;

/// A slow operation as ZFS tells it: 141 ms of which 138 were the intent log.
fn slow(id: u64) -> Record<'static> {
    Record {
        time_ns: ENDED + id,
        severity: Severity::Warn,
        kind: "zfs.slow_operation",
        plane: "",
        unit: "postgresql@15-main.service",
        body: "fsync on rpool/pg took 141ms: zil_commit 138ms, cpu 2.00ms",
        attributes: vec![
            ("event_id", Attribute::Integer(id)),
            ("dataset", Attribute::Text("rpool/pg")),
            ("op", Attribute::Text("fsync")),
            ("duration_seconds", Attribute::Float(0.141)),
            ("process", Attribute::Integer(4711)),
            ("bytes", Attribute::Integer(u64::MAX)),
        ],
        span: Some(Span {
            name: "zfs fsync".to_owned(),
            duration_ns: 141_000_000,
            stages: vec![("zil_commit", 138_000_000), ("cpu", 2_000_000)],
        }),
    }
}

/// A line of the journal, which took no time.
fn line(time_ns: u64) -> Record<'static> {
    Record {
        time_ns,
        severity: Severity::Error,
        kind: "journal",
        plane: "storage",
        body: "line 1\nline 2 \u{1f980}",
        attributes: vec![
            ("pid", Attribute::Integer(7)),
            ("tid", Attribute::Integer(8)),
        ],
        ..Record::default()
    }
}

fn text(value: &str) -> Value {
    Value::StringValue(value.to_owned())
}

/// Attributes as pairs, in their order.
fn pairs(attributes: &[KeyValue]) -> Vec<(&str, Value)> {
    let attributes = attributes.iter();
    let pair = |one: &'_ KeyValue| one.value.clone().and_then(|value| value.value);
    attributes
        .map(|one| (&*one.key, pair(one).expect("a value")))
        .collect()
}
