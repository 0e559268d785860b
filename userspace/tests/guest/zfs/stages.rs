//! Where an operation's time went.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use kldtrace::{catalogue, kernel::loader::Options, signals::zfs::at_once};
use kldtrace_exporters::model::{Event, Field};

use super::{
    super::shared::{patient, shows},
    Pool, attach,
    ops::LATENCY,
};
use crate::common::{Snapshot, gained, grew, sh};

const STAGES: &str = "kldtrace_zfs_stage_latency_seconds";
const SLOW: &str = "kldtrace_zfs_slow_operations";
const ALL: [&str; 7] = [
    "arc_miss",
    "zil_commit",
    "throttle",
    "txg_wait",
    "other_wait",
    "runqueue",
    "cpu",
];

/// Nanoseconds of all stages of some operations between two snapshots.
pub fn sum(before: &Snapshot, after: &Snapshot, labels: &[(&str, &str)]) -> u64 {
    gained(before, after, STAGES, labels).sum_ns
}

#[test]
fn zfs_stages_of_an_fsync_add_up_to_it_and_name_the_intent_log() {
    let Some(pool) = Pool::make("stages", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    let mut file = File::create(pool.file("file")).unwrap();
    // The first commit makes the log, and waits for a transaction group.
    file.sync_all().unwrap();
    file.write_all(&[1; 4096]).unwrap();
    file.sync_all().unwrap();
    pool.delay(&pool.vdevs[0], 200);
    let before = probes.snapshot();
    for _ in 0..10 {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
    }
    let after = probes.snapshot();
    Pool::heal();
    let labels = |stage| {
        [
            ("dataset", "stages/data"),
            ("op", "fsync"),
            ("stage", stage),
        ]
    };
    let whole = gained(&before, &after, LATENCY, &labels("")[..2]);
    let stage = |stage| gained(&before, &after, STAGES, &labels(stage)).sum_ns;
    let parts = ALL.map(stage);
    println!("{} ns: {parts:?}", whole.sum_ns);
    assert_eq!(whole.count(), 10);
    assert_eq!(parts.iter().sum::<u64>(), whole.sum_ns);
    // The vdev takes 200 ms for each write of the log; nothing else waits.
    assert!(whole.sum_ns >= 2_000_000_000);
    assert!(parts[1] as f64 >= 0.9 * whole.sum_ns as f64, "{parts:?}");
}

#[test]
fn zfs_stages_of_a_cold_read_name_the_disk() {
    let Some(pool) = Pool::make("cold", 1, "") else {
        return;
    };
    fs::write(pool.file("file"), vec![1; 1 << 20]).unwrap();
    sh("zpool export cold && zpool import -d /tmp cold");
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    pool.delay(&pool.vdevs[0], 50);
    let before = probes.snapshot();
    sh("dd if=/cold/data/file of=/dev/null bs=128k count=1 2>/dev/null");
    let after = probes.snapshot();
    Pool::heal();
    let read = [("dataset", "cold/data"), ("op", "read")];
    let whole = gained(&before, &after, LATENCY, &read);
    assert_eq!(whole.count(), 1);
    let labels = |stage| [("dataset", "cold/data"), ("op", "read"), ("stage", stage)];
    let parts = ALL.map(|stage| gained(&before, &after, STAGES, &labels(stage)).sum_ns);
    println!("{} ns: {parts:?}", whole.sum_ns);
    assert_eq!(parts.iter().sum::<u64>(), whole.sum_ns);
    assert!(whole.sum_ns >= 50_000_000);
    // The data's block is read by the read itself; that of the file's indirect
    // blocks may be, too, or waited for elsewhere.
    assert!(parts[0] >= 45_000_000, "{parts:?}");
}

#[test]
fn zfs_slow_operations_are_events_with_their_breakdown() {
    let Some(pool) = Pool::make("slow", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.slow_operations"]);
    let mut file = File::create(pool.file("file")).unwrap();
    let before = probes.snapshot();
    file.write_all(&[1; 4096]).unwrap();
    file.sync_all().unwrap();
    pool.delay(&pool.vdevs[0], 250);
    for _ in 0..3 {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
    }
    Pool::heal();
    let after = probes.snapshot();
    let slow = [("dataset", "slow/data"), ("op", "fsync")];
    let counted = grew(&before, &after, SLOW, &slow);
    let events: Vec<Event> = probes.0.take_events();
    let ours: Vec<_> = events
        .iter()
        .filter(|event| {
            let has = |name: &str, value: &str| {
                event.labels.iter().any(|(n, v)| n == name && &**v == value)
            };
            has("op", "fsync") && has("dataset", "slow/data")
        })
        .collect();
    println!("{ours:?}");
    assert_eq!(ours.len() as u64, counted);
    // The first fsync may be slow as well: this machine is emulated.
    let delayed: Vec<_> = ours
        .iter()
        .filter(|e| seconds(e, "duration_seconds") >= 0.25)
        .collect();
    assert_eq!(delayed.len(), 3);
    for event in delayed {
        let whole = seconds(event, "duration_seconds");
        let parts: f64 = ALL
            .iter()
            .map(|s| seconds(event, &format!("{s}_seconds")))
            .sum();
        assert!((whole - parts).abs() < 1e-6, "{event:?}");
        assert!(
            seconds(event, "zil_commit_seconds") > 0.9 * whole,
            "{event:?}"
        );
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let age = now.unwrap().abs_diff(Duration::from_nanos(event.time_ns));
        assert!(age < Duration::from_mins(1), "{age:?}");
    }
}

/// Where each operation is slow, they may be told as fast as they are taken in.
#[test]
fn zfs_slow_operations_without_end_leave_a_reading_its_end() {
    let Some(pool) = Pool::make("endless", 1, "") else {
        return;
    };
    shows(&["zfs.slow_operations"]);
    fs::write(pool.file("file"), [1; 4096]).unwrap();
    let options = Options {
        settings: vec![("ZFS_SLOW_NS", 1)],
        ..Options::default()
    };
    let mut reader = patient(&[catalogue::find("zfs.slow_operations").unwrap()], &options);
    reader.keep_events(1 << 20);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            let file = File::open(pool.file("file")).unwrap();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    file.read_at(&mut [0; 512], 0).unwrap();
                }
            });
        }
        // They end also where the reading waits for them.
        let ends = &stop;
        scope.spawn(move || {
            let until = Instant::now() + Duration::from_mins(1);
            while !ends.load(Relaxed) && Instant::now() < until {
                thread::sleep(Duration::from_millis(100));
            }
            ends.store(true, Relaxed);
        });
        thread::sleep(Duration::from_secs(1));
        reader.drain().unwrap();
        let ended = stop.swap(true, Relaxed);
        assert!(!ended, "a reading ended only with what it read");
    });
    let events = reader.take_events();
    let at_once = at_once(options.event_buffer);
    println!("{} of {at_once}", events.len());
    // The ring was full, or nearly: what is more came while it was read.
    assert!(events.len() <= at_once && events.len() > at_once / 2);
    let named = |event: &Event| {
        event
            .labels
            .iter()
            .any(|(_, value)| &**value == "endless/data")
    };
    assert!(events.iter().all(named));
}

fn seconds(event: &Event, name: &str) -> f64 {
    let field = event.fields.iter().find(|(field, _)| field == name);
    match field {
        Some((_, Field::Float(seconds))) => *seconds,
        other => panic!("{name}: {other:?}"),
    }
}
