//! A real Prometheus scrapes a real daemon, and both tell the same.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    sync::atomic::Ordering::SeqCst,
};

use kldtrace_exporters::model::Histogram;
use serde_json::Value;

use super::{
    common::{Daemon, fetch, installed, kldtrace},
    disk::{Loop, SlowFile, read, write},
};

mod server;

pub use self::server::Prometheus;
use self::server::parse;

const DEVICE: &str = "kldtrace_block_device_latency_seconds";

#[test]
fn prometheus_and_latency_tell_the_same() {
    if !installed("prometheus") {
        return;
    }
    let Some(daemon) = Daemon::start("[signals]\nenable = [\"block.*\", \"self.*\"]") else {
        return;
    };
    let slow = SlowFile::mount();
    let device = Loop::on(&slow.path);
    let disk = device.open(0);
    let prometheus = Prometheus::start(daemon.port);

    // One request before the window: `increase` wants a sample to start from.
    read(&disk, 0).unwrap();
    let labels = format!("{{device=\"{}\",op=\"read\"}}", device.name);
    let series = format!("{DEVICE}{labels}");
    prometheus.wait_for_news(&series);

    let mut tool = kldtrace()
        .args(["latency", "block.device_latency", "--json", "--by", "op"])
        .args(["--interval", "3s", "--duration", "9s"])
        .args(["--filter", &format!("device={}", device.name)])
        .arg("--socket")
        .arg(daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tool.stdout.take().unwrap()).lines();
    let mut next = || -> Value { serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap() };
    // Its first line says that it looks; the load falls into the second.
    assert_eq!(next()["rows"], Value::Array(Vec::new()));
    for (delay, requests) in [(0, 30), (1, 23), (7, 15), (23, 7)] {
        slow.does.delay.store(delay, SeqCst);
        for block in 0..requests {
            read(&disk, block).unwrap();
        }
    }
    slow.does.delay.store(0, SeqCst);
    write(&disk, 0).unwrap();
    let mut rows = next()["rows"].as_array().unwrap().clone();
    assert_eq!(next()["rows"], Value::Array(Vec::new()), "a quiet window");
    assert!(tool.wait().unwrap().success());
    rows.retain(|row| row["labels"]["op"] == "read");
    let [shown] = rows.as_slice() else {
        panic!("{rows:?}");
    };
    assert_eq!(shown["count"], 75);

    prometheus.wait_for_news(&series);
    // The window again: since the first request, whenever that was scraped.
    let window = format!("increase({series}[10m])");
    for (q, name) in [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p999")] {
        let theirs = prometheus.number(&format!("histogram_quantile({q}, {window})"));
        let ours = shown[name].as_f64().unwrap();
        println!("{name}: prometheus {theirs} s, kldtrace {ours} s");
        // The same bucket: they interpolate in it, we take its geometric
        // middle, which is 2^(1/16) from either end.
        let apart = (theirs / ours).log2().abs() * 16.0;
        assert!(apart <= 1.0 + 1e-9, "{name}: {theirs} {ours}");
    }

    // At one instant all of it: bucket for bucket, and the counters.
    let families = daemon.families("block");
    let labels = [("device", device.name.as_str()), ("op", "read")];
    let ours = families.histogram(DEVICE, &labels);
    let sample = prometheus.one(&series);
    let theirs = &sample["histogram"][1];
    assert_eq!(theirs["count"], "76");
    assert_eq!(
        parse(&theirs["sum"]).to_bits(),
        ours.sum_seconds().to_bits()
    );
    let theirs = theirs["buckets"].as_array().unwrap();
    assert_eq!(theirs.len(), ours.buckets.len());
    for (theirs, (index, count)) in theirs.iter().zip(&ours.buckets) {
        assert_eq!(theirs[3], count.to_string());
        let bounds = [
            Histogram::upper_bound(index - 1),
            Histogram::upper_bound(*index),
        ];
        for (theirs, ours) in [1, 2].map(|i| parse(&theirs[i])).iter().zip(bounds) {
            assert!((theirs / ours - 1.0).abs() < 1e-14, "{theirs} {ours}");
        }
    }
    for (metric, op, expected) in [
        ("kldtrace_block_requests", "read", 76),
        ("kldtrace_block_requests", "write", 1),
        ("kldtrace_block_bytes", "read", 76 * 4096),
        ("kldtrace_block_errors", "read", 0),
    ] {
        let labels = [("device", device.name.as_str()), ("op", op)];
        assert_eq!(families.integer(metric, &labels), expected, "{metric} {op}");
        let query = format!("{metric}_total{{device=\"{}\",op=\"{op}\"}}", device.name);
        let sample = prometheus.one(&query);
        assert_eq!(sample["value"][1], expected.to_string(), "{query}");
    }
    assert_eq!(prometheus.one("up")["value"][1], "1");
}

#[test]
fn prometheus_promtool_is_content() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    if !installed("promtool") {
        return;
    }
    // The second scrape also has what the first one says of itself.
    let _ = daemon.get("/metrics", "");
    let (status, text) = daemon.get("/metrics", "");
    assert_eq!(status, 200);
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool.stdin.take().unwrap().write_all(&text).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

#[test]
fn prometheus_formats_are_negotiated() {
    const PROTOBUF: &str = "application/vnd.google.protobuf; \
        proto=io.prometheus.client.MetricFamily; encoding=delimited";
    let Some(daemon) = Daemon::start("[signals]\nenable = [\"sched.*\", \"self.*\"]") else {
        return;
    };
    for (accept, content_type, is) in [
        (
            "",
            "text/plain; version=0.0.4; charset=utf-8",
            is_text as fn(&[u8]) -> bool,
        ),
        (
            "text/plain;version=0.0.4",
            "text/plain; version=0.0.4; charset=utf-8",
            is_text,
        ),
        (
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            |body| body.ends_with(b"\n# EOF\n"),
        ),
        (PROTOBUF, PROTOBUF, is_delimited),
        (
            "image/png;;;q=",
            "text/plain; version=0.0.4; charset=utf-8",
            is_text,
        ),
    ] {
        let (head, body) = fetch(daemon.port, "/metrics", accept).unwrap();
        let head = head.to_ascii_lowercase();
        assert!(
            head.starts_with("http/1.") && head.contains(" 200 ok"),
            "{head}"
        );
        let expected = format!("content-type: {content_type}").to_ascii_lowercase();
        assert!(
            head.lines().any(|line| line == expected),
            "{accept}: {head}"
        );
        assert!(is(&body), "{accept}");
    }
}

fn is_text(body: &[u8]) -> bool {
    body.starts_with(b"# TYPE ") && !body.ends_with(b"# EOF\n")
}

/// Whether the bytes are messages, each after its length as a varint, to the
/// last byte, with a field 1 (the name) first.
fn is_delimited(mut body: &[u8]) -> bool {
    let mut messages = 0;
    while !body.is_empty() {
        let (mut length, mut shift) = (0, 0);
        while let Some((byte, rest)) = body.split_first() {
            body = rest;
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if length > body.len() || body.first() != Some(&0x0a) {
            return false;
        }
        body = &body[length..];
        messages += 1;
    }
    messages > 10
}
