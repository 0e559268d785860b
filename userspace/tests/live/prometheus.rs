//! A real Prometheus scrapes a real daemon, and both tell the same.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering::SeqCst,
    time::{SystemTime, UNIX_EPOCH},
};

use kldtrace_exporters::model::Histogram;
use serde_json::Value;

use super::{
    common::{Daemon, fetch, free_port, get, installed, kldtrace, wait_for},
    disk::{Loop, SlowFile, read, write},
};

const DEVICE: &str = "kldtrace_block_device_latency_seconds";

/// A Prometheus with native histograms; ends with this value.
pub struct Prometheus {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: u16) -> Self {
        Self::with(&format!(
            "global: {{scrape_interval: 1s}}\n\
             scrape_configs: [{{job_name: kldtrace, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        ))
    }

    /// One with this configuration.
    pub fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        Self::in_folder(folder)
    }

    /// One whose configuration is in a folder.
    pub fn in_folder(folder: tempfile::TempDir) -> Self {
        Self::run(folder, &["--enable-feature=native-histograms"])
    }

    /// The same with other options.
    pub fn run(folder: tempfile::TempDir, options: &[&str]) -> Self {
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let port = free_port();
        let child = Command::new("prometheus")
            .current_dir(folder.path())
            .args(options)
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            child,
            port,
            folder,
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has it read them again.
    pub fn reload(&self) {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGHUP) };
    }

    /// The whole answer to a request of its API, whose path ends where a text
    /// goes that is encoded here.
    pub fn ask(&self, path: &str, text: &str) -> Value {
        let mut path = path.to_owned();
        for byte in text.bytes() {
            write!(path, "%{byte:02x}").unwrap();
        }
        let (_, body) = get(self.port, &path, "");
        serde_json::from_slice(&body).unwrap_or_default()
    }

    pub fn query(&self, query: &str) -> Vec<Value> {
        let mut answer = self.ask("/api/v1/query?query=", query);
        match answer["data"]["result"].take() {
            Value::Array(samples) => samples,
            _ => Vec::new(),
        }
    }

    pub fn one(&self, query: &str) -> Value {
        let mut samples = self.query(query);
        assert_eq!(samples.len(), 1, "{query}: {samples:?}");
        samples.remove(0)
    }

    fn number(&self, query: &str) -> f64 {
        parse(&self.one(query)["value"][1])
    }

    /// Waits for a sample of the series that was taken after this moment.
    pub fn wait_for_news(&self, series: &str) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        wait_for(&format!("a scrape of {series}"), || {
            let when = self.query(&format!("timestamp({series})"));
            when.first()
                .is_some_and(|when| parse(&when["value"][1]) > now.as_secs_f64())
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            println!("prometheus: {}", log.unwrap_or_default());
        }
    }
}

fn parse(field: &Value) -> f64 {
    field.as_str().unwrap().parse().unwrap()
}

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
