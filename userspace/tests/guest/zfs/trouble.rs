//! Trouble that ZFS reports, against `zpool status` and `zpool events`; and
//! syncs against the pool's own table of transaction groups.

use std::{
    collections::HashMap,
    fs,
    os::unix::fs::FileExt as _,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{Pool, attach, lost};
use crate::common::{Probes, Snapshot, assert_close, gained, grew, sh, wait_for};

const CHECKSUM: &str = "kldtrace_zfs_vdev_checksum_errors";
const SLOW: &str = "kldtrace_zfs_vdev_slow_requests";
const HUNG: &str = "kldtrace_zfs_vdev_hung_requests";
const REPORTS: &str = "kldtrace_zfs_reports";

/// The counts of `zpool status`: READ, WRITE, CKSUM and, with `-s`, SLOW by
/// name of the row.
fn status(pool: &str) -> HashMap<String, [u64; 4]> {
    let text = sh(&format!("zpool status -ps {pool}"));
    let rows = text.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let number = |at: usize| words.get(at)?.parse().ok();
        let counts = [number(2)?, number(3)?, number(4)?, number(5).unwrap_or(0)];
        Some(((*words.first()?).to_owned(), counts))
    });
    let rows: HashMap<_, _> = rows.collect();
    assert!(rows.contains_key(pool), "{text}");
    rows
}

/// Reports of a class that ZFS has kept.
fn told_by_zfs(class: &str) -> usize {
    let text = sh("zpool events -H");
    let class = format!("ereport.fs.zfs.{class}");
    let lines = text.lines();
    lines.filter(|line| line.ends_with(&class)).count()
}

/// Events of a class that came since the last call.
fn told(probes: &mut Probes, class: &str) -> usize {
    probes.0.drain().unwrap();
    let events = probes.0.take_events();
    for event in events.iter().take(2) {
        println!("{}", event.message);
    }
    let of_class = events.iter().filter(|event| {
        let labels = event.labels.iter();
        event.kind == "report"
            && labels
                .clone()
                .any(|(name, value)| name == "class" && **value == *class)
    });
    of_class.count()
}

/// A snapshot while ZFS reports nothing of a pool, so that all events of what it
/// counts have come: events are taken before numbers are read.
fn at_rest(probes: &mut Probes, pool: &str) -> Snapshot {
    let labels = [("pool", pool)];
    let mut last = probes.snapshot();
    wait_for("no more reports", || {
        thread::sleep(Duration::from_millis(100));
        let next = probes.snapshot();
        let is_quiet = grew(&last, &next, REPORTS, &labels) == 0;
        last = next;
        is_quiet
    });
    last
}

fn setting(name: &str, value: u64) -> u64 {
    let path = format!("/sys/module/zfs/parameters/{name}");
    let before = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    fs::write(path, value.to_string()).unwrap();
    before
}

fn of(before: &Snapshot, after: &Snapshot, metric: &str, vdev: &str) -> u64 {
    grew(before, after, metric, &[("vdev", vdev)])
}

/// A pool that is a mirror of two files.
fn mirror(name: &str) -> Option<Pool> {
    let halves = ["a", "b"].map(|half| format!("/tmp/{name}-{half}"));
    let files = halves.join(" ");
    sh(&format!("rm -f {files}; truncate -s 192M {files}"));
    let Some(mut pool) = Pool::make(name, 0, &format!("mirror {files}")) else {
        sh(&format!("rm -f {files}"));
        return None;
    };
    pool.vdevs = halves.into();
    Some(pool)
}

#[test]
fn zfs_wrong_checksums_are_those_of_zpool_status() {
    let Some(pool) = mirror("cksum") else {
        return;
    };
    let mut probes = attach(&["zfs.vdev_checksum_errors"]);
    sh("zpool events -c; zfs set compression=off cksum/data");
    fs::write(pool.file("file"), vec![5; 16 << 20]).unwrap();
    pool.sync();
    let before = probes.snapshot();
    // Behind ZFS's back, past its labels at the front.
    sh("zpool export cksum
        dd if=/dev/urandom of=/tmp/cksum-b bs=1M seek=8 count=24 conv=notrunc 2>/dev/null
        zpool import -d /tmp cksum
        zpool scrub -w cksum");
    let after = probes.snapshot();
    let status = status("cksum");
    println!("{status:?}");
    let vdevs = ["/tmp/cksum-a", "/tmp/cksum-b"];
    for vdev in vdevs {
        assert_eq!(
            of(&before, &after, CHECKSUM, vdev),
            status[vdev][2],
            "{vdev}"
        );
    }
    assert_eq!(status[vdevs[0]][2], 0);
    assert!(status[vdevs[1]][2] > 20);
    let labels = [("pool", "cksum")];
    let all = grew(&before, &after, CHECKSUM, &labels);
    let rows = status.iter().filter(|(row, _)| *row != "cksum");
    assert_eq!(all, rows.map(|(_, counts)| counts[2]).sum::<u64>());
    let events = told(&mut probes, "checksum");
    println!("{all} errors, {events} events");
    // ZFS lets so many through in a second, and so do we.
    assert!(events > 0);
    assert_eq!(events, told_by_zfs("checksum"));
}

#[test]
fn zfs_failed_requests_are_those_of_zpool_status() {
    let Some(pool) = mirror("failio") else {
        return;
    };
    let mut probes = attach(&["zfs.reports"]);
    sh("zpool events -c; zfs set compression=off failio/data");
    fs::write(pool.file("file"), vec![5; 4 << 20]).unwrap();
    pool.sync();
    sh("zpool export failio && zpool import -d /tmp failio");
    let before = probes.snapshot();
    let left_before = lost(&probes, "zfs_event");
    sh("zinject -d /tmp/failio-b -e io -T read -f 20 failio >/dev/null");
    let _ = Command::new("cat").arg(pool.file("file")).output();
    sh("zpool scrub -w failio");
    Pool::heal();
    let after = probes.snapshot();
    let status = status("failio");
    println!("{status:?}");
    let io = |vdev| grew(&before, &after, REPORTS, &[("vdev", vdev), ("class", "io")]);
    let [read, write, ..] = status["/tmp/failio-b"];
    assert!(read > 0);
    assert_eq!(io("/tmp/failio-b"), read + write);
    assert_eq!(io("/tmp/failio-a"), 0);
    // Chance has it how many fail in one second: what is over the limit on
    // events is counted.
    let told = told(&mut probes, "io") as u64;
    let left = lost(&probes, "zfs_event") - left_before;
    assert!(told > 0);
    assert_eq!(told + left, told_by_zfs("io") as u64);
}

#[test]
fn zfs_failures_without_end_are_counted_and_told_up_to_a_limit() {
    let Some(pool) = Pool::make("flood", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.reports"]);
    sh("zfs set compression=off recordsize=4K flood/data");
    fs::write(pool.file("file"), vec![5; 2 << 20]).unwrap();
    pool.sync();
    sh("zpool export flood && zpool import -d /tmp flood");
    let before = at_rest(&mut probes, "flood");
    let _ = probes.0.take_events();
    let left_before = lost(&probes, "zfs_event");
    let zfs_before = status("flood");
    sh(&format!(
        "zinject -d {} -e io -T read -f 100 flood >/dev/null",
        pool.vdevs[0]
    ));
    // Some fail at the vdev, and all after that for want of one.
    let start = Instant::now();
    let file = fs::File::open(pool.file("file")).unwrap();
    for i in 0..500 {
        assert!(file.read_at(&mut [0; 4096], i * 4096).is_err());
    }
    Pool::heal();
    let seconds = start.elapsed().as_secs();
    let after = at_rest(&mut probes, "flood");
    let [read, write, ..] = status("flood")[&pool.vdevs[0]];
    let [read_before, write_before, ..] = zfs_before[&pool.vdevs[0]];
    let zfs = read + write - read_before - write_before;
    let of = |labels: &[(&str, &str)]| grew(&before, &after, REPORTS, labels);
    let all = of(&[("pool", "flood")]);
    let events = probes.0.take_events();
    let told = events.iter().filter(|event| event.kind == "report").count() as u64;
    let left = lost(&probes, "zfs_event") - left_before;
    println!("{zfs} failed, {all} reports, {told} told, {left} not, {seconds} s");
    assert_eq!(of(&[("pool", "flood"), ("class", "io")]), zfs);
    assert_eq!(of(&[("vdev", "flood"), ("class", "data")]), 500);
    // Nothing is left out that is not counted. Seconds begin before and end
    // after.
    assert_eq!(told + left, all);
    assert!(told <= 50 * (seconds + 2), "{told}");
    assert_eq!(lost(&probes, "event"), 0);
}

#[test]
fn zfs_slow_requests_are_those_of_zpool_status() {
    let Some(pool) = Pool::make("slowio", 2, "") else {
        return;
    };
    let mut probes = attach(&["zfs.vdev_slow_requests"]);
    sh("zpool events -c");
    pool.sync();
    let usual = setting("zio_slow_io_ms", 100);
    let before = probes.snapshot();
    let zfs_before = status("slowio");
    pool.delay(&pool.vdevs[1], 200);
    for i in 0..5 {
        fs::write(pool.file(&format!("f{i}")), vec![i; 256 << 10]).unwrap();
    }
    pool.sync();
    Pool::heal();
    let after = probes.snapshot();
    let zfs_after = status("slowio");
    setting("zio_slow_io_ms", usual);
    for (vdev, is_slow) in [(&pool.vdevs[0], false), (&pool.vdevs[1], true)] {
        let zfs = zfs_after[vdev][3] - zfs_before[vdev][3];
        println!("{vdev}: {zfs} slow");
        assert_eq!(of(&before, &after, SLOW, vdev), zfs, "{vdev}");
        // The other may be slow as well on a machine that is busy.
        assert!(!is_slow || zfs > 3, "{zfs}");
    }
    assert_eq!(told(&mut probes, "delay"), told_by_zfs("delay"));
}

#[test]
fn zfs_requests_that_hang_are_those_of_the_deadman() {
    let Some(pool) = Pool::make("hung", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.vdev_hung_requests"]);
    sh("zpool events -c; echo 0 > /proc/spl/kstat/zfs/dbgmsg");
    let usual = [
        ("zfs_deadman_ziotime_ms", 1000),
        ("zfs_deadman_synctime_ms", 1000),
        ("zfs_deadman_checktime_ms", 500),
    ]
    .map(|(name, value)| (name, setting(name, value)));
    let before = probes.snapshot();
    pool.delay(&pool.vdevs[0], 4000);
    fs::write(pool.file("file"), vec![1; 64 << 10]).unwrap();
    let syncing = thread::spawn(|| sh("zpool sync hung"));
    wait_for("the deadman", || {
        thread::sleep(Duration::from_millis(200));
        of(&before, &probes.snapshot(), HUNG, &pool.vdevs[0]) > 0
    });
    Pool::heal();
    syncing.join().unwrap();
    for (name, value) in usual {
        setting(name, value);
    }
    let hung = of(&before, &probes.snapshot(), HUNG, &pool.vdevs[0]);
    let log = fs::read_to_string("/proc/spl/kstat/zfs/dbgmsg").unwrap();
    let logged = log.lines().filter(|line| line.contains("slow zio["));
    assert_eq!(hung, logged.count() as u64);
    let events = told(&mut probes, "deadman");
    println!("{hung} seen, {events} told");
    assert!(events > 0);
    assert_eq!(events, told_by_zfs("deadman"));
}

#[test]
fn zfs_syncs_are_those_of_the_transaction_groups() {
    const TIME: &str = "kldtrace_zfs_spa_sync_time_seconds";
    let Some(pool) = Pool::make("spasync", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.spa_sync_time"]);
    pool.sync();
    let (before, zfs_before) = (probes.snapshot(), pool.groups());
    pool.delay(&pool.vdevs[0], 200);
    for i in 0..5 {
        fs::write(pool.file("file"), vec![i; 100_000]).unwrap();
        pool.sync();
    }
    Pool::heal();
    let (after, zfs_after) = (probes.snapshot(), pool.groups());
    let ours = gained(&before, &after, TIME, &[("pool", "spasync")]);
    let (count, time) = (zfs_after.0 - zfs_before.0, zfs_after.1 - zfs_before.1);
    println!("{} syncs, {} of {time} ns", ours.count(), ours.sum_ns);
    assert!(count >= 5);
    assert_eq!(ours.count(), count);
    // Inside the phase, and nearly all of it.
    assert!(ours.sum_ns <= time);
    assert_close(ours.sum_ns as f64 / 1e9, time as f64 / 1e9, 0.0);
}
