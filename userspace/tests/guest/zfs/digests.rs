//! What is made of the histograms of ZFS, against them and against what was done.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    time::{Duration, Instant},
};

use kldtrace::config::{Config, Objectives};
use kldtrace_exporters::model::Value;

use super::{Pool, attach};
use crate::digested::{compare, one, seconds};

/// Each request to the vdev takes so many milliseconds: by far the longest part of a sync.
const DELAY: u64 = 40;
const SYNCS: u64 = 4;

#[test]
fn zfs_digests_are_what_the_histograms_say() {
    let Some(pool) = Pool::make("digests", 1, "") else {
        return;
    };
    let mut probes = attach(&[
        "zfs.op_latency",
        "zfs.stage_latency",
        "zfs.txg_time",
        "zfs.vdev_device_latency",
    ]);
    // What an emulated machine does in its memory takes less.
    probes.0.set_objectives(Objectives {
        zfs_operation: Duration::from_millis(20),
        // Quantiles are of all that histograms have, which is what they are compared with.
        look_back: Duration::from_hours(1),
        ..Config::default().objectives
    });
    let began = Instant::now();
    let file = File::create(pool.file("file")).unwrap();
    // The first has more to write.
    file.write_all_at(&[7; 4096], 0).unwrap();
    file.sync_all().unwrap();
    let before = probes.0.exported(Duration::MAX).unwrap();
    pool.delay(&pool.vdevs[0], DELAY);
    for block in 0..SYNCS {
        file.write_all_at(&[7; 4096], block * 4096).unwrap();
        file.sync_all().unwrap();
    }
    pool.sync();
    Pool::heal();
    let after = probes.0.exported(Duration::MAX).unwrap();
    println!("{:?}", compare(&after));

    let dataset = pool.dataset();
    let of_pool: &[_] = &[("pool", &*pool.name)];
    let of_dataset: &[_] = &[("pool", &*pool.name), ("dataset", &*dataset)];
    let grew = |metric: &str, labels: &[(&str, &str)]| {
        let integer = |families| match one(families, metric, labels) {
            Value::Integer(number) => number,
            other => panic!("{metric}: {other:?}"),
        };
        integer(&after) - integer(&before)
    };
    assert_eq!(grew("kldtrace_zfs_operations", of_pool), 2 * SYNCS);
    // All five, in each second since the objectives were set.
    let rate = seconds(&one(
        &after,
        "kldtrace_zfs_zil_waits_per_second",
        of_dataset,
    ));
    let most = (SYNCS + 1) as f64 / (SYNCS * DELAY) as f64 * 1e3;
    let least = (SYNCS + 1) as f64 / (began.elapsed().as_secs_f64() + 1.0);
    assert!((least..most).contains(&rate), "{least} {rate} {most}");
    // A write may be slow as well, when the delayed group is in its way.
    let missed = grew("kldtrace_zfs_operations_over_objective", of_pool);
    assert!((SYNCS..=2 * SYNCS).contains(&missed), "{missed}");
    let delay = DELAY as f64 / 1e3;
    for (metric, labels) in [
        ("kldtrace_zfs_zil_wait_p99_seconds", of_dataset),
        ("kldtrace_zfs_txg_sync_p90_seconds", of_pool),
    ] {
        let seconds = seconds(&one(&after, metric, labels));
        // The middle of a bucket.
        assert!(
            (0.95 * delay..10.0).contains(&seconds),
            "{metric}: {seconds}"
        );
    }
    let writes: &[_] = &[("pool", &*pool.name), ("type", "write")];
    let mean = seconds(&one(
        &after,
        "kldtrace_zfs_vdev_device_mean_seconds",
        writes,
    ));
    let first = seconds(&one(
        &before,
        "kldtrace_zfs_vdev_device_mean_seconds",
        writes,
    ));
    // Those before the delay are in it.
    assert!(mean > first && mean < 10.0, "{first} {mean}");
}
