//! Waits for ZFS's threads, against what spl itself counts and against a queue
//! that was made long.

use std::{fs, time::Instant};

use kldtrace::quantile;

use super::{Pool, attach, lost};
use crate::common::{Snapshot, gained, sh};

const WAIT: &str = "kldtrace_zfs_taskq_wait_seconds";

/// Tasks that were handed to queues of a kind, as spl counts since 2.3; `None`:
/// this release does not.
fn dispatched(kind: &str) -> Option<u64> {
    let folder = fs::read_dir("/proc/spl/kstat/taskq").ok()?;
    let mut sum = 0;
    for entry in folder.map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        // z_wr_iss.0, z_wr_iss_2.1
        let queue = name.split('.').next().unwrap();
        let number = queue
            .strip_prefix(kind)
            .map(|rest| rest.trim_start_matches('_'));
        if number.is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit())) {
            let text = fs::read_to_string(entry.path()).unwrap();
            let line = text
                .lines()
                .find(|line| line.split_whitespace().next() == Some("tasks_dispatched"));
            let number = line.unwrap().split_whitespace().last().unwrap();
            sum += number.parse::<u64>().unwrap();
        }
    }
    Some(sum)
}

fn waits(before: &Snapshot, after: &Snapshot, taskq: &str) -> quantile::Summary {
    let histogram = gained(before, after, WAIT, &[("taskq", taskq)]);
    quantile::Summary::of(&histogram)
}

#[test]
fn zfs_tasks_wait_as_often_as_they_are_handed_over() {
    const KINDS: [&str; 4] = ["z_wr_iss", "z_wr_int", "z_rd_int", "z_null_int"];
    let Some(pool) = Pool::make("taskq", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.taskq_wait"]);
    sh("zfs set compression=off taskq/data");
    pool.sync();
    let spl = || KINDS.map(dispatched);
    let (spl_before, before) = (spl(), probes.snapshot());
    fs::write(pool.file("file"), vec![9; 16 << 20]).unwrap();
    pool.sync();
    sh("zpool scrub -w taskq");
    pool.sync();
    let (after, spl_after) = (probes.snapshot(), spl());
    for (i, kind) in KINDS.iter().enumerate() {
        let count = gained(&before, &after, WAIT, &[("taskq", kind)]).count();
        println!("{kind}: {count}");
        if let (Some(before), Some(after)) = (spl_before[i], spl_after[i]) {
            assert_eq!(count, after - before, "{kind}");
        }
    }
    // Each request to a vdev ends as a task.
    for (taskq, kind) in [("z_wr_int", "write"), ("z_rd_int", "read")] {
        let requests = gained(
            &before,
            &after,
            "kldtrace_zfs_vdev_device_latency_seconds",
            &[("pool", "taskq"), ("type", kind)],
        );
        let tasks = gained(&before, &after, WAIT, &[("taskq", taskq)]);
        println!("{kind}: {} requests", requests.count());
        assert!(requests.count() > 50);
        assert!(tasks.count() >= requests.count());
    }
    assert_eq!(lost(&probes, "zfs_task"), 0);
}

#[test]
fn zfs_tasks_wait_longer_in_a_queue_that_is_long() {
    let Some(pool) = Pool::make("longq", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.taskq_wait"]);
    let mut data = vec![0; 12 << 20];
    fs::File::open("/dev/urandom")
        .and_then(|mut random| std::io::Read::read_exact(&mut random, &mut data))
        .unwrap();
    let mut write = |compression: &str| {
        sh(&format!(
            "zfs set compression={compression} {}",
            pool.dataset()
        ));
        let (before, start) = (probes.snapshot(), Instant::now());
        fs::write(pool.file("file"), &data).unwrap();
        pool.sync();
        let took = start.elapsed().as_secs_f64();
        let waits = waits(&before, &probes.snapshot(), "z_wr_iss");
        println!("{compression}: {waits:?}, in {took} s");
        // Nothing waits longer than all of it takes, but for its bucket.
        assert!(waits.max <= took * 1.1, "{waits:?} {took}");
        waits.p90
    };
    // Blocks are compressed by the threads that take tasks of z_wr_iss: at its
    // slowest, all but the first wait for it.
    let (short, long) = (write("off"), write("gzip-9"));
    assert!(long > 2.0 * short, "{short} {long}");
}
