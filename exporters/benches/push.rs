//! What 20,000 events a second cost on their way through the spool into Loki:
//! CPU time and memory of the process that spools and pushes, and bytes on the
//! wire. The stand-in for Loki is another process.
//!
//! Prints one JSON object for each form of the push.

#[path = "../tests/loki/double.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod double;

use std::{
    env,
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use double::Double;
use kldtrace_exporters::{
    loki::{Auth, Format, Loki, Settings},
    push::{self, Aside, Counters, Delivery, Lane},
    record::{Attribute, Record, Severity},
    spool::{self, Spool},
};
use serde_json::{Value, json};
use tokio::sync::watch;

const RATE: u64 = 20_000;
const SECONDS: u64 = 10;

/// The argument that makes this program the stand-in.
const STAND_IN: &str = "stand-in";

fn main() {
    if env::args().any(|argument| argument == STAND_IN) {
        return stand_in();
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (name, format) in [("protobuf", Format::Protobuf), ("json", Format::Json)] {
        println!("{}", runtime.block_on(measure(name, format)));
    }
}

/// Answers until its input ends, and then says what it has.
fn stand_in() {
    let double = Double::start();
    println!("{}", double.url());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    let stored = double.stored();
    let stored = || stored.values().flatten();
    // As JSON pushes have them, without their labels.
    let json = |one: &double::Stored| {
        json!([one.time_ns.to_string(), one.line, one.metadata])
            .to_string()
            .len()
    };
    let said = json!({
        "stored": stored().count(),
        "wire": double.body_bytes(),
        "json": stored().map(json).sum::<usize>(),
    });
    println!("{said}");
}

/// The stand-in's process.
struct Receiver {
    child: Child,
    url: String,
}

impl Receiver {
    fn start() -> Self {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .arg(STAND_IN)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a stand-in");
        let mut url = String::new();
        // A byte at a time: nothing of what comes later is read.
        let output = child.stdout.as_mut().expect("piped");
        BufReader::with_capacity(1, output)
            .read_line(&mut url)
            .expect("an address");
        let url = url.trim().to_owned();
        Self { child, url }
    }

    fn end(mut self) -> Value {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().expect("its last words");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }
}

async fn measure(name: &str, format: Format) -> Value {
    let directory = tempfile::tempdir().expect("a directory");
    let receiver = Receiver::start();
    let wanted = spool::Settings {
        directory: directory.path().to_owned(),
        bytes: 1 << 30,
        sync: Some(Duration::from_secs(1)),
    };
    let (spool, readers) = Spool::open(wanted, &[("loki", &[Lane::Events])]).expect("a spool");
    let loki = Loki::new(Settings {
        url: receiver.url.clone(),
        format,
        tenant: None,
        auth: Auth::None,
        node: "node-1".to_owned(),
        tls: None,
        deadline: Duration::from_secs(30),
    });
    let counters = Arc::new(Counters::default());
    let delivery = Delivery {
        name: "loki",
        reader: readers.into_iter().next().expect("one reader"),
        destination: loki.expect("Loki"),
        settings: push::Settings {
            bytes: 512 << 10,
            age: Duration::from_secs(1),
            longest_wait: Duration::from_secs(1),
        },
        counters: counters.clone(),
        aside: Arc::new(Aside::new(directory.path().join("refused.jsonl"), 1 << 20)),
    };
    let (stop, stopped) = watch::channel(false);
    let task = tokio::spawn(delivery.run(stopped, Duration::from_secs(30)));
    let (start, before) = (Instant::now(), process_cpu());
    let mut sent = 0;
    let mut spooled = 0;
    let mut resident = 0;
    while sent < RATE * SECONDS {
        // As the daemon takes events from the kernel.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let due = (RATE * start.elapsed().as_millis() as u64 / 1000).min(RATE * SECONDS);
        let records: Vec<_> = (sent..due).map(event).collect();
        let entries: Vec<_> = records.iter().map(|one| (Lane::Events, &one[..])).collect();
        spooled += records.iter().map(Vec::len).sum::<usize>();
        spool.append(&entries).expect("room on the disk");
        sent = due;
        resident = resident.max(resident_bytes());
    }
    stop.send_replace(true);
    task.await.expect("the delivery");
    let cpu = process_cpu().saturating_sub(before).as_secs_f64();
    let said = receiver.end();
    let number = |name: &str| said[name].as_f64().expect("a number");
    assert_eq!(counters.read().taken, sent);
    assert_eq!(said["stored"], sent);
    let events = sent as f64;
    json!({
        "format": name,
        "events": sent,
        "us_an_event": cpu * 1e6 / events,
        // Waiting for the stand-in to finish does not make it cheaper.
        "percent_of_a_core": 100.0 * cpu / SECONDS as f64,
        "resident_bytes": resident,
        "spool_bytes_an_event": spooled as f64 / events,
        "wire_bytes_an_event": number("wire") / events,
        "json_bytes_an_event": number("json") / events,
    })
}

/// A slow operation, with numbers that differ from one to the next.
fn event(id: u64) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A multiplicative hash: numbers as odd as measured ones.
    let odd = id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let dataset = format!("rpool/data/{}", odd % 40);
    let body = format!(
        "fsync on {dataset} took {odd} us: zil_commit {} us",
        odd / 2
    );
    let seconds = odd as f64 / 1e6;
    let record = Record {
        time_ns: now.map_or(0, |now| now.as_nanos() as u64),
        severity: Severity::Warn,
        kind: "zfs.slow_operation",
        unit: ["postgresql@15-main.service", "nfs-server.service", "qemu-7"][(odd % 3) as usize],
        body: &body,
        attributes: vec![
            ("event_id", Attribute::Integer(id)),
            ("pool", Attribute::Text("rpool")),
            ("dataset", Attribute::Text(&dataset)),
            ("op", Attribute::Text("fsync")),
            ("sync", Attribute::Text("sync")),
            ("duration_seconds", Attribute::Float(seconds)),
            ("offset_class", Attribute::Text("start")),
            ("process", Attribute::Integer(odd % 30_000)),
            ("command", Attribute::Text("postgres")),
            ("bytes", Attribute::Integer(odd % 8192)),
            ("zil_commit_seconds", Attribute::Float(seconds / 2.0)),
            ("cpu_seconds", Attribute::Float(seconds / 3.0)),
        ],
        ..Record::default()
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

/// CPU time of this process, user and system (getrusage(2)).
fn process_cpu() -> Duration {
    // SAFETY: getrusage fills the struct; zeros are a valid one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.cast_unsigned())
            + Duration::from_micros(time.tv_usec.cast_unsigned())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// `VmRSS` of this process.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes.expect("VmRSS").parse().expect("a number");
    kibibytes << 10
}
