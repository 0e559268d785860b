//! `kldtrace latency`, asked by hand: what it prints, writes and refuses.

use std::{
    collections::BTreeSet,
    fs,
    process::Output,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
};

use kldtrace::catalogue;
use kldtrace_exporters::model::Kind;
use serde_json::Value;

use super::{
    common::{Daemon, kldtrace, root},
    disk::{Loop, read, write},
};

fn latency(arguments: &[&str]) -> Output {
    kldtrace().arg("latency").args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = text(output);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn rows(output: &Output) -> Vec<Value> {
    let lines = lines(output);
    let rows = lines
        .iter()
        .flat_map(|line| line["rows"].as_array().unwrap());
    rows.cloned().collect()
}

#[test]
fn latency_lists_every_latency_of_the_catalogue() {
    let listed: BTreeSet<String> = lines(&latency(&["--list", "--json"]))
        .iter()
        .map(|line| line["signal"].as_str().unwrap().to_owned())
        .collect();
    let signals = catalogue::signals()
        .filter(|signal| signal.kind == Kind::Histogram && !signal.name.starts_with("self."));
    let expected: BTreeSet<String> = signals.map(|signal| signal.name.to_owned()).collect();
    assert_eq!(listed, expected);
    let shown = text(&latency(&["--list"]));
    assert!(expected.iter().all(|name| shown.contains(name)), "{shown}");
}

#[test]
fn latency_says_what_was_meant() {
    for (arguments, code, said) in [
        (
            &["shced"][..],
            1,
            "unknown target \"shced\" (did you mean \"sched\"?)",
        ),
        (
            &["block.device_latencies"],
            1,
            "did you mean \"block.device_latency\"?",
        ),
        (&["block", "--explain"], 1, "--explain is for zfs"),
        (
            &["zfs", "--explain", "--by", "vdev"],
            1,
            "by pool, dataset, op",
        ),
        (
            &["zfs", "--explain", "--quantile", "99"],
            2,
            "write 0.99 or p99",
        ),
        (&["xyzzy"], 1, "the targets are sched, tcp, block"),
        (&["block", "--by", "devcie"], 1, "did you mean \"device\"?"),
        (
            &["block", "--filter", "opp=read"],
            1,
            "did you mean \"op\"?",
        ),
        (&["block", "--filter", "read"], 2, "LABEL=VALUE"),
        (&["sched", "--duration", "5"], 2, "5s"),
        (
            &["sched", "--hgrm", "/nonexistent/x.hgrm"],
            1,
            "/nonexistent/x",
        ),
        (&[], 2, "<TARGET>"),
    ] {
        let output = latency(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn latency_is_the_same_from_the_daemon_and_from_probes_of_its_own() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let socket = daemon.socket();
    let families = |address: &[&str]| -> BTreeSet<(String, String)> {
        let common = ["sched", "--json", "--by", "unit", "--duration", "2s"];
        let rows = rows(&latency(&[&common[..], address].concat()));
        rows.iter()
            .map(|row| {
                let labels = row["labels"].as_object().unwrap();
                let labels: Vec<_> = labels.keys().map(String::as_str).collect();
                (row["metric"].as_str().unwrap().to_owned(), labels.join(","))
            })
            .collect()
    };
    let asked = families(&["--socket", socket.to_str().unwrap()]);
    let attached = families(&["--attach"]);
    assert_eq!(asked, attached);
    assert!(!asked.is_empty());
}

#[test]
fn latency_shows_what_is_asked_for() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    fs::write(&image, vec![1; 1 << 20]).unwrap();
    let device = Loop::on(&image);
    let disk = device.open(0);
    let done = AtomicBool::new(false);
    let filter = format!("device={}*", device.name);
    let hgrm = folder.path().join("out.hgrm");
    let run = |more: &[&str]| {
        let common = ["block.device_latency", "--attach", "--duration", "2s"];
        latency(&[&common[..], &["--filter", &filter], more].concat())
    };
    let (json, plain) = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(SeqCst) {
                read(&disk, 1).unwrap();
                write(&disk, 2).unwrap();
            }
        });
        let json = run(&[
            "--json",
            "--by",
            "device,op",
            "--hgrm",
            hgrm.to_str().unwrap(),
        ]);
        let plain = run(&["--filter", "op=read", "--by", "op"]);
        done.store(true, SeqCst);
        (json, plain)
    });

    let rows = rows(&json);
    let mut observed = 0;
    for row in &rows {
        assert_eq!(row["labels"]["device"], device.name, "{row}");
        let buckets = row["buckets"].as_array().unwrap();
        let sum: u64 = buckets
            .iter()
            .map(|bucket| bucket[1].as_u64().unwrap())
            .sum();
        assert_eq!(row["count"], sum);
        observed += sum;
        let at = |name: &str| row[name].as_f64().unwrap();
        let order = ["p50", "p90", "p99", "p999", "max"].map(at);
        assert!(order.is_sorted() && order[0] > 0.0, "{row}");
    }
    let ops: BTreeSet<_> = rows
        .iter()
        .map(|row| row["labels"]["op"].as_str().unwrap())
        .collect();
    assert_eq!(ops, BTreeSet::from(["read", "write"]));

    // Value, percentile, total, as HdrHistogram's plotters read it.
    let text_of_file = fs::read_to_string(&hgrm).unwrap();
    let table: Vec<Vec<f64>> = text_of_file
        .lines()
        .filter(|line| !line.starts_with('#') && !line.contains("Value") && !line.is_empty())
        .map(|line| {
            line.split_whitespace()
                .map(|n| n.parse().unwrap())
                .collect()
        })
        .collect();
    assert!(table.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]));
    let last = table.last().unwrap();
    assert_eq!(last[1..3], [1.0, observed as f64]);

    let plain = text(&plain);
    let figures: Vec<_> = plain
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(!figures.is_empty(), "{plain}");
    for line in figures {
        let fields: Vec<_> = line.split_whitespace().collect();
        assert_eq!(fields[1], "block.device_latency", "{plain}");
        assert_eq!(fields.last(), Some(&"op=read"), "{plain}");
    }
}

#[test]
fn events_are_asked_of_the_daemon() {
    for (subject, said) in [("zfz", "did you mean \"zfs\"?"), ("tcp", "tells no events")] {
        let output = kldtrace().args(["events", subject]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(error.contains(said), "{error}");
    }
    let Some(daemon) = Daemon::start("[signals]\nenable = [\"block.*\"]") else {
        return;
    };
    let socket = daemon.socket();
    let events = |arguments: &[&str]| {
        let mut command = kldtrace();
        command
            .args(["events", "--socket"])
            .arg(&socket)
            .args(arguments);
        text(&command.output().unwrap())
    };
    // Nothing has happened that is an event.
    assert_eq!(events(&["--json", "--since", "1h"]), "");
    let table = events(&["zfs", "--limit", "5"]);
    assert!(table.starts_with("# TIME"), "{table}");
    assert_eq!(table.lines().count(), 1);
}
