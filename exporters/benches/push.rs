//! What 20,000 events a second cost on their way through the spool into Loki:
//! CPU time of the thread that spools and pushes, and bytes on the wire. The
//! stand-in for Loki runs in other threads and is not counted.

#[path = "../tests/loki/double.rs"]
#[allow(dead_code, reason = "the tests use more of it")]
mod double;

use std::{
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
use tokio::sync::watch;

const RATE: u64 = 20_000;
const SECONDS: u64 = 10;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    for (name, format) in [("protobuf", Format::Protobuf), ("json", Format::Json)] {
        runtime.block_on(measure(name, format));
    }
}

async fn measure(name: &str, format: Format) {
    let directory = tempfile::tempdir().expect("a directory");
    let double = Double::start();
    let wanted = spool::Settings {
        directory: directory.path().to_owned(),
        bytes: 1 << 30,
        sync: Some(Duration::from_secs(1)),
    };
    let (spool, readers) = Spool::open(wanted, &[("loki", &[Lane::Events])]).expect("a spool");
    let loki = Loki::new(Settings {
        url: double.url(),
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
    let (start, before) = (Instant::now(), thread_cpu());
    let mut sent = 0;
    let mut spooled = 0;
    while sent < RATE * SECONDS {
        // As the daemon takes events from the kernel.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let due = (RATE * start.elapsed().as_millis() as u64 / 1000).min(RATE * SECONDS);
        let records: Vec<_> = (sent..due).map(event).collect();
        let entries: Vec<_> = records.iter().map(|one| (Lane::Events, &one[..])).collect();
        spooled += records.iter().map(Vec::len).sum::<usize>();
        spool.append(&entries).expect("room on the disk");
        sent = due;
    }
    stop.send_replace(true);
    task.await.expect("the delivery");
    let cpu = thread_cpu().saturating_sub(before);
    let taken = counters.read().taken;
    let stored: usize = double.stored().values().map(Vec::len).sum();
    assert_eq!((taken, stored as u64), (sent, sent));
    println!(
        "{name}: {sent} events in {:.1} s, all stored; {:.2} us an event, which is {:.1} % of a \
         core at {RATE} a second; {} bytes an event in the spool, {} on the wire",
        start.elapsed().as_secs_f64(),
        cpu.as_secs_f64() * 1e6 / sent as f64,
        // Waiting for the stand-in to finish does not make it cheaper.
        100.0 * cpu.as_secs_f64() / SECONDS as f64,
        spooled as u64 / sent,
        double.body_bytes() as u64 / sent,
    );
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

/// CPU time of this thread, user and system (getrusage(2)).
fn thread_cpu() -> Duration {
    // SAFETY: getrusage fills the struct; zeros are a valid one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    let time = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.cast_unsigned())
            + Duration::from_micros(time.tv_usec.cast_unsigned())
    };
    time(usage.ru_utime) + time(usage.ru_stime)
}
