//! Requests to vdevs, against a delay that was put in and against what ZFS
//! counts itself.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write as _,
};

use kldtrace::quantile;
use kldtrace_exporters::model::Histogram;

use super::{Pool, attach};
use crate::common::{Snapshot, assert_close, gained, grew, sh};

const QUEUE: &str = "kldtrace_zfs_vdev_queue_latency_seconds";
const DEVICE: &str = "kldtrace_zfs_vdev_device_latency_seconds";
const BYTES: &str = "kldtrace_zfs_vdev_bytes";
const ERRORS: &str = "kldtrace_zfs_vdev_errors";
const LOG_QUEUE: &str = "kldtrace_zfs_log_queue_latency_seconds";
const LOG_DEVICE: &str = "kldtrace_zfs_log_device_latency_seconds";

pub fn median(histogram: &Histogram) -> f64 {
    quantile::Summary::of(histogram).p50
}

#[test]
fn zfs_delay_of_one_vdev_is_in_its_device_time_and_in_no_others() {
    let Some(pool) = Pool::make("delay", 2, "") else {
        return;
    };
    let mut probes = attach(&["zfs.vdev_device_latency", "zfs.vdev_queue_latency"]);
    pool.delay(&pool.vdevs[0], 200);
    let before = probes.snapshot();
    for i in 0..8 {
        fs::write(pool.file(&format!("f{i}")), vec![i; 256 << 10]).unwrap();
    }
    pool.sync();
    let after = probes.snapshot();
    Pool::heal();
    let of = |metric, vdev: &str| {
        gained(
            &before,
            &after,
            metric,
            &[("pool", "delay"), ("vdev", vdev)],
        )
    };
    let (slow, fast) = (of(DEVICE, &pool.vdevs[0]), of(DEVICE, &pool.vdevs[1]));
    println!("{} and {}", median(&slow), median(&fast));
    assert!(slow.count() > 5 && fast.count() > 5);
    // ZFS waits until the delay is over: 5 % is for this emulated machine.
    assert_close(median(&slow), 0.2, 0.2 * 0.05);
    assert!(median(&fast) < 0.1, "{}", median(&fast));
}

/// `zpool iostat -w` counts in powers of two of nanoseconds, we in eighths of
/// powers of two of seconds, so a boundary of one lies inside a bucket of the
/// other: at each of ZFS's boundaries its count must lie between ours at the
/// boundary below and the one above.
#[test]
fn zfs_vdev_histograms_are_those_of_zpool_iostat() {
    let Some(pool) = Pool::make("iostat", 1, "") else {
        return;
    };
    let mut probes = attach(&[
        "zfs.vdev_device_latency",
        "zfs.vdev_queue_latency",
        "zfs.vdev_bytes",
        "zfs.vdev_errors",
    ]);
    pool.sync();
    let zfs_before = iostat(&pool.name);
    let before = probes.snapshot();
    let mut file = File::create(pool.file("file")).unwrap();
    for i in 0..40 {
        file.write_all(&vec![i; 20_000]).unwrap();
        if i % 4 == 0 {
            file.sync_all().unwrap();
        }
    }
    pool.sync();
    sh("zpool scrub -w iostat");
    pool.sync();
    let after = probes.snapshot();
    let zfs_after = iostat(&pool.name);
    for (column, metric, label, value) in [
        ("disk_read", DEVICE, "type", "read"),
        ("disk_write", DEVICE, "type", "write"),
        ("syncq_write", QUEUE, "priority", "sync_write"),
        ("asyncq_write", QUEUE, "priority", "async_write"),
        ("scrub", QUEUE, "priority", "scrub"),
    ] {
        let ours = gained(
            &before,
            &after,
            metric,
            &[("pool", "iostat"), (label, value)],
        );
        let mut zfs_so_far = 0;
        for (upper, counts) in &zfs_after {
            zfs_so_far += counts[column] - zfs_before[upper][column];
            let below = at_most(&ours, *upper as f64 / 1e9 / (2_f64).powf(0.125));
            let above = at_most(&ours, *upper as f64 / 1e9 * (2_f64).powf(0.125));
            assert!(
                below <= zfs_so_far && zfs_so_far <= above,
                "{column} up to {upper} ns: {below} <= {zfs_so_far} <= {above}"
            );
        }
        println!("{column}: {zfs_so_far}");
        assert_eq!(ours.count(), zfs_so_far, "{column}");
        assert!(zfs_so_far > 0 || column == "scrub", "{column}");
    }
    let written = grew(
        &before,
        &after,
        BYTES,
        &[("pool", "iostat"), ("type", "write")],
    );
    assert!(written >= 40 * 20_000, "{written}");
    assert_eq!(grew(&before, &after, ERRORS, &[("pool", "iostat")]), 0);
}

/// Observations of at most so many seconds, as far as whole buckets tell.
fn at_most(histogram: &Histogram, seconds: f64) -> u64 {
    let buckets = histogram.buckets.iter();
    let within = buckets.filter(|(index, _)| Histogram::upper_bound(*index) <= seconds * 1.000_001);
    histogram.zero + within.map(|(_, count)| count).sum::<u64>()
}

/// Counts of `zpool iostat -w` by upper bound in nanoseconds and column.
fn iostat(pool: &str) -> BTreeMap<u64, BTreeMap<&'static str, u64>> {
    const COLUMNS: [&str; 9] = [
        "total_read",
        "total_write",
        "disk_read",
        "disk_write",
        "syncq_read",
        "syncq_write",
        "asyncq_read",
        "asyncq_write",
        "scrub",
    ];
    let text = sh(&format!("zpool iostat -wpH {pool}"));
    let rows = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let upper = words.next()?.parse().ok()?;
        let counts = words.map(|word| word.parse().unwrap_or(0));
        Some((upper, COLUMNS.into_iter().zip(counts).collect()))
    });
    let rows: BTreeMap<_, _> = rows.collect();
    assert!(rows.len() > 20, "{text}");
    rows
}

#[test]
fn zfs_log_writes_are_the_datasets_own_and_name_their_device() {
    fs::write("/tmp/slog", "").unwrap();
    sh("truncate -s 192M /tmp/slog");
    let Some(pool) = Pool::make("logs", 1, "log /tmp/slog") else {
        return;
    };
    let mut probes = attach(&["zfs.log_queue_latency", "zfs.log_device_latency"]);
    sh("zfs create logs/quiet");
    let commits = || log_writes("zil_itx_metaslab_slog_count");
    let zfs_before = commits();
    let before = probes.snapshot();
    pool.delay("/tmp/slog", 200);
    let mut file = File::create(pool.file("file")).unwrap();
    for _ in 0..6 {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
    }
    let after = probes.snapshot();
    Pool::heal();
    let of = |metric, dataset| {
        let labels = [
            ("pool", "logs"),
            ("dataset", dataset),
            ("vdev", "/tmp/slog"),
            ("log", "slog"),
        ];
        gained(&before, &after, metric, &labels)
    };
    let device = of(LOG_DEVICE, "logs/data");
    println!(
        "{} writes of the log, median {}",
        device.count(),
        median(&device)
    );
    assert!(device.count() >= 6, "{}", device.count());
    assert_close(median(&device), 0.2, 0.2 * 0.05);
    assert_eq!(of(LOG_QUEUE, "logs/data").count(), device.count());
    assert_eq!(of(LOG_DEVICE, "logs/quiet").count(), 0);
    assert!(commits() > zfs_before);
}

fn log_writes(column: &str) -> u64 {
    let text = fs::read_to_string("/proc/spl/kstat/zfs/zil").unwrap();
    let line = text.lines().find(|line| line.starts_with(column)).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn zfs_vdev_that_fails_is_counted_by_name() {
    let Some(pool) = Pool::make("errors", 2, "") else {
        return;
    };
    let mut probes = attach(&["zfs.vdev_errors"]);
    // Enough to lie on both.
    sh("zfs set compression=off errors/data");
    fs::write(pool.file("file"), vec![1; 16 << 20]).unwrap();
    pool.sync();
    sh("zpool export errors && zpool import -d /tmp errors");
    let before: Snapshot = probes.snapshot();
    sh(&format!(
        "zinject -d {} -e io -T read errors",
        pool.vdevs[1]
    ));
    let _ = std::process::Command::new("cat")
        .arg(pool.file("file"))
        .output();
    Pool::heal();
    let after = probes.snapshot();
    let errors = |vdev: &str| {
        grew(
            &before,
            &after,
            ERRORS,
            &[("pool", "errors"), ("vdev", vdev)],
        )
    };
    println!("{} and {}", errors(&pool.vdevs[0]), errors(&pool.vdevs[1]));
    assert!(errors(&pool.vdevs[1]) > 0);
    assert_eq!(errors(&pool.vdevs[0]), 0);
}
