//! What evaluating the rules costs a Prometheus with many nodes. Each node has
//! every family of the catalogue, with ten units, eight datasets and four disks;
//! a real Prometheus scrapes them and says how long its rules took.
//!
//! Prints one JSON object.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use kldtrace::{
    bundle::{RULES, template::Bundle, values::Values},
    catalogue::{Exported, Subject, exported, signals},
};
use kldtrace_abi::loss::Loss;
use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Series, Unit, Value},
    prometheus::{Format, encode, negotiate},
};
use serde_json::json;

const NODES: usize = 500;
/// Programs and maps of a node with ZFS, WireGuard and four planes.
const PROGRAMS: usize = 60;
const MAPS: usize = 12;
/// As the configuration has it that `kldtrace export prometheus` writes.
const INTERVAL: Duration = Duration::from_secs(15);
/// A window of five minutes is full then.
const WARM_UP: Duration = Duration::from_secs(320);
/// Rules that are named.
const DEAREST: usize = 20;
/// Evaluations that are looked at.
const LOOKS: usize = 9;

fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let targets = listener.local_addr().expect("its address").port();
    let body = Arc::new(Body::new());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let body = body.clone();
            thread::spawn(move || while answer(&stream, &body).is_some() {});
        }
    });
    let folder = tempfile::tempdir().expect("a folder");
    let prometheus = Prometheus::start(folder.path(), targets);
    thread::sleep(WARM_UP);
    let mut evaluations: BTreeMap<_, Vec<f64>> = BTreeMap::new();
    for _ in 0..LOOKS {
        thread::sleep(INTERVAL);
        for (group, seconds) in prometheus.numbers("prometheus_rule_group_last_duration_seconds") {
            evaluations.entry(group).or_default().push(1e3 * seconds);
        }
    }
    // Others use the machine as well: the median of each group says what it costs, and
    // the sum of the worst what may be met.
    let of = |pick: fn(&[f64]) -> f64| {
        let picked = evaluations.iter().map(|(group, times)| {
            let mut times = times.clone();
            times.sort_by(f64::total_cmp);
            (group.clone(), pick(&times))
        });
        picked.collect::<BTreeMap<_, _>>()
    };
    let groups = of(|times| times[times.len() / 2]);
    let (cycle, least, most) = (
        groups.values().sum::<f64>(),
        of(|times| times[0]).values().sum::<f64>(),
        of(|times| times[times.len() - 1]).values().sum::<f64>(),
    );
    let line = json!({
        "nodes": NODES,
        "series": prometheus.number("prometheus_tsdb_head_series"),
        "rules": prometheus.number("prometheus_rule_group_rules"),
        // Also of rules whose results cannot be stored, which no counter has.
        "failures": prometheus.get("/api/v1/rules").matches("\"health\":\"err\"").count(),
        "missed": prometheus.number("prometheus_rule_group_iterations_missed_total"),
        "cycle_ms": cycle,
        "fastest_ms": least,
        "slowest_ms": most,
        "groups_ms": groups,
        "dearest_ms": prometheus.dearest(),
    });
    println!("{line}");
}

/// What all nodes answer within the same second: only Prometheus is measured.
struct Body {
    start: Instant,
    last: Mutex<(u64, Arc<Vec<u8>>)>,
}

impl Body {
    fn new() -> Self {
        Self {
            start: Instant::now(),
            last: Mutex::default(),
        }
    }

    fn now(&self, format: Format) -> Arc<Vec<u8>> {
        // From 1 on: at 0 nothing is there.
        let second = self.start.elapsed().as_secs() + 1;
        let mut last = self.last.lock().expect("no thread has panicked");
        if last.0 != second {
            let families: Vec<_> = exported().map(|one| family(&one, second)).collect();
            *last = (second, Arc::new(encode(format, &families)));
        }
        last.1.clone()
    }
}

/// One scrape; `None`: the end of the connection.
fn answer(stream: &TcpStream, body: &Body) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut accept = None;
    let mut line = String::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("accept")
        {
            accept = Some(value.trim().to_owned());
        }
    }
    let format = negotiate(accept.as_deref());
    let body = body.now(format);
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n",
        format.content_type(),
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(&body).ok()
}

/// Values of a label on one node: as many as a node has where all is measured.
fn values(exported: &Exported, label: &str) -> Vec<String> {
    let numbered = |count: usize| (0..count).map(|n| format!("{label}-{n}")).collect();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    match (exported.signal.name, label) {
        ("self.signal_available", "signal") => {
            signals().map(|signal| signal.name.to_owned()).collect()
        }
        ("self.losses", "reason") => words(&Loss::ALL.map(Loss::as_str)),
        (_, "program") => numbered(PROGRAMS),
        (_, "map") => numbered(MAPS),
        (_, "subject") => numbered(Subject::ALL.len()),
        (_, "unit") => numbered(10),
        (_, "dataset") => numbered(8),
        (_, "device" | "vdev" | "peer" | "collector") => numbered(4),
        (_, "interface") => numbered(2),
        (_, "op") => words(&["read", "write", "fsync"]),
        (_, "type") => words(&["read", "write"]),
        (_, "stage") => words(&["zil_commit", "arc_miss"]),
        (_, "reason") => words(&["uninterruptible", "no_answer"]),
        (_, "phase") => words(&["sync", "open"]),
        (_, "role") => words(&["initiator", "responder"]),
        (_, "state") => words(&["ONLINE"]),
        (_, "kind") => words(&["data", "syn"]),
        (_, "what") => words(&["size", "target"]),
        (_, "result") => words(&["assigned", "dirty_delay", "taken", "refused"]),
        _ => numbered(1),
    }
}

/// What nodes tell of only where something is wrong.
fn silent(exported: &Exported) -> bool {
    [
        "kldtrace_block_errors_recent",
        "kldtrace_losses_per_second",
        "kldtrace_map_fullness_ratio",
        "kldtrace_series_folded",
        "kldtrace_signal_absent",
        "kldtrace_wireguard_expired_session_timestamp_seconds",
        "kldtrace_wireguard_peer_handshake_failures_2m",
        "kldtrace_wireguard_refused_handshakes_per_second",
        "kldtrace_zfs_reports_recent",
        "kldtrace_zfs_vdev_checksum_errors_recent",
        "kldtrace_zfs_vdev_hung_requests_recent",
        "kldtrace_zfs_vdev_slow_requests_recent",
    ]
    .contains(&exported.metric)
}

fn family(exported: &Exported, seconds: u64) -> Family {
    let mut sets: Vec<Vec<_>> = vec![Vec::new()];
    for &label in &exported.labels {
        let with = |set: &Vec<_>| {
            let set = set.clone();
            let more = move |value: String| [&set[..], &[(label.into(), value.into())]].concat();
            values(exported, label).into_iter().map(more)
        };
        sets = sets.iter().flat_map(with).collect();
    }
    let value = match (exported.kind, exported.unit) {
        (Kind::Histogram, _) => Value::Histogram(Histogram {
            sum_ns: seconds * 3_000_000,
            buckets: (-80..-64).map(|index| (index, 10 * seconds)).collect(),
            ..Histogram::default()
        }),
        // A good day: no errors, nothing waits, and no alert fires. A rate of
        // what does not grow costs as much as any.
        (Kind::Counter, Unit::Seconds) => Value::Float(1.0),
        (Kind::Gauge, Unit::Seconds) if exported.metric != exported.signal.metric => {
            Value::Float(0.001)
        }
        _ => Value::Integer(match exported.signal.name {
            "self.map_entries" | "self.push_waiting" | "self.spool_size" => 0,
            // In the year 2096.
            "self.certificate_expiry" => 4_000_000_000,
            _ => 1,
        }),
    };
    let series = |labels: Vec<(_, Arc<str>)>| Series {
        labels,
        value: value.clone(),
    };
    Family {
        name: exported.metric.into(),
        help: exported.help.into(),
        kind: exported.kind,
        unit: exported.unit,
        series: if silent(exported) {
            Vec::new()
        } else {
            sets.into_iter().map(series).collect()
        },
    }
}

/// A Prometheus with the rules; ends with this value.
struct Prometheus {
    child: Child,
    port: u16,
}

impl Prometheus {
    fn start(folder: &std::path::Path, targets: u16) -> Self {
        let bundle = Bundle::parse(RULES).expect("a bundle");
        let values = Values::new(&[])
            .and_then(|values| values.with_selector("job=\"kldtrace\""))
            .and_then(|values| values.with_runbooks("https://example.org"))
            .expect("values");
        for (name, text) in bundle.fill(&values).expect("rules") {
            fs::write(folder.join(name), text).expect("a written file");
        }
        let target = |node: usize| {
            json!({
                "targets": [format!("127.0.0.1:{targets}")],
                "labels": {"instance": format!("node-{node}"), "node": format!("node-{node}")},
            })
        };
        let targets: Vec<_> = (0..NODES).map(target).collect();
        let interval = format!("{}s", INTERVAL.as_secs());
        // JSON is YAML.
        let config = json!({
            "global": {"scrape_interval": interval, "evaluation_interval": interval},
            "rule_files": ["kldtrace-*.yml"],
            "scrape_configs": [{"job_name": "kldtrace", "static_configs": targets}],
        });
        fs::write(folder.join("prometheus.yml"), config.to_string()).expect("a written file");
        let free = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("its address").port();
        drop(free);
        let child = Command::new("prometheus")
            .current_dir(folder)
            .arg("--enable-feature=native-histograms")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus");
        Self { child, port }
    }

    /// The sum over the series of one of its own metrics.
    fn number(&self, metric: &str) -> f64 {
        let numbers = self.numbers(metric).into_iter();
        numbers.map(|(_, number)| number).sum()
    }

    /// The series of one of its own metrics: labels and value.
    fn numbers(&self, metric: &str) -> Vec<(String, f64)> {
        let text = self.get("/metrics");
        let of_metric = |line: &str| {
            let (labels, number) = line.strip_prefix(metric)?.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            Some((labels.to_owned(), number.parse().ok()?)).filter(|_| whole)
        };
        text.lines().filter_map(of_metric).collect()
    }

    /// The rules that took longest at their last evaluation, in milliseconds.
    fn dearest(&self) -> Vec<(String, f64)> {
        let answer = self.get("/api/v1/rules");
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let said: serde_json::Value = serde_json::from_str(body).expect("JSON");
        let groups = said["data"]["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let mut rules: Vec<_> = rules
            .map(|rule| {
                let name = rule["name"].as_str().unwrap_or_default().to_owned();
                let seconds = rule["evaluationTime"].as_f64().unwrap_or_default();
                (name, 1e3 * seconds)
            })
            .collect();
        rules.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        rules.truncate(DEAREST);
        rules
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("prometheus");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
