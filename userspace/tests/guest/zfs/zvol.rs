//! Volumes: requests as issued, as ZFS counts them and as the kernel counts
//! them for the disk.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    time::{Duration, Instant},
};

use super::{Pool, attach, lost, state::kstat};
use crate::common::{Snapshot, gained, grew, sh, wait_for};

const LATENCY: &str = "kldtrace_zfs_zvol_latency_seconds";
const BYTES: &str = "kldtrace_zfs_zvol_bytes";
const ERRORS: &str = "kldtrace_zfs_zvol_errors";
const BLOCK: usize = 16 << 10;

/// Memory that O_DIRECT takes.
struct Aligned {
    bytes: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    fn of(length: usize) -> Self {
        let bytes = vec![7; length + 4096];
        let from = bytes.as_ptr().align_offset(4096);
        Self {
            bytes,
            from,
            length,
        }
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes[self.from..][..self.length]
    }
}

/// A volume's disk.
struct Disk {
    /// `zd0`.
    name: String,
    file: File,
}

impl Disk {
    /// Makes a volume of 64 MiB and opens its disk past the page cache.
    fn make(dataset: &str) -> Self {
        let before = disks();
        sh(&format!(
            "zfs create -s -V 64M -b {BLOCK} -o compression=off {dataset}"
        ));
        let mut name = None;
        wait_for("the volume's disk", || {
            name = disks().difference(&before).next().cloned();
            name.as_ref()
                .is_some_and(|name| fs::metadata(format!("/dev/{name}")).is_ok())
        });
        let name = name.unwrap();
        let file = open(&name);
        Self { name, file }
    }

    fn write(&self, at: u64, bytes: usize) {
        self.file
            .write_all_at(Aligned::of(bytes).bytes(), at)
            .unwrap();
    }

    fn read(&self, at: u64, bytes: usize) {
        self.file
            .read_exact_at(Aligned::of(bytes).bytes(), at)
            .unwrap();
    }

    fn discard(&self, at: u64, bytes: u64) {
        let range = [at, bytes];
        // BLKDISCARD of include/uapi/linux/fs.h.
        // SAFETY: the descriptor is open; the ioctl reads two numbers.
        let done = unsafe { libc::ioctl(self.file.as_raw_fd(), 0x1277, range.as_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }

    /// A column of Documentation/block/stat.rst.
    fn stat(&self, column: usize) -> u64 {
        let text = fs::read_to_string(format!("/sys/block/{}/stat", self.name)).unwrap();
        text.split_whitespace()
            .nth(column)
            .unwrap()
            .parse()
            .unwrap()
    }
}

fn open(name: &str) -> File {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_DIRECT)
        .open(format!("/dev/{name}"))
        .unwrap()
}

fn disks() -> BTreeSet<String> {
    fs::read_dir("/sys/block")
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("zd"))
        .collect()
}

fn count(before: &Snapshot, after: &Snapshot, dataset: &str, op: &str) -> u64 {
    gained(before, after, LATENCY, &[("dataset", dataset), ("op", op)]).count()
}

#[test]
fn zfs_zvol_requests_are_counted_as_issued_and_as_zfs_counts() {
    let Some(pool) = Pool::make("zvols", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.zvol_latency", "zfs.zvol_bytes"]);
    let disk = Disk::make("zvols/vm");
    let other = Disk::make("zvols/other");
    let zfs = || {
        let columns = ["writes", "nwritten", "reads", "nread"];
        columns.map(|column| pool.objset("zvols/vm", column))
    };
    let commits = || kstat("zil", "zil_commit_count");
    let stat = || [4, 6, 0, 2, 11, 13].map(|column| disk.stat(column));
    let (zfs_before, stat_before, commits_before) = (zfs(), stat(), commits());
    let before = probes.snapshot();

    for i in 0..100 {
        disk.write(i * 4096, 4096);
    }
    for i in 0..30 {
        disk.write(i << 20, 4 * BLOCK);
    }
    for i in 0..80 {
        disk.read(i * 4096, 4096);
    }
    for i in 0..20 {
        disk.read(i << 20, 2 * BLOCK);
    }
    for _ in 0..7 {
        disk.file.sync_all().unwrap();
    }
    disk.discard(0, 1 << 20);
    disk.discard(8 << 20, 4 << 20);
    other.write(0, 4096);

    let after = probes.snapshot();
    let grown = |now: &[u64], then: &[u64]| -> Vec<u64> {
        now.iter().zip(then).map(|(now, then)| now - then).collect()
    };
    let zfs = grown(&zfs(), &zfs_before);
    let stat = grown(&stat(), &stat_before);
    let commits = commits() - commits_before;
    println!("kstat {zfs:?}, stat {stat:?}, {commits} commits");
    let (written, read) = (
        100 * 4096 + 30 * 4 * BLOCK as u64,
        80 * 4096 + 20 * 2 * BLOCK as u64,
    );
    assert_eq!(zfs, [130, written, 100, read]);
    assert_eq!(&stat[..4], [130, written / 512, 100, read / 512]);
    assert_eq!((stat[4], stat[5]), (2, (5 << 20) / 512));

    let ours = |op| count(&before, &after, "zvols/vm", op);
    let bytes = |op| {
        let labels = [("pool", "zvols"), ("dataset", "zvols/vm"), ("op", op)];
        grew(&before, &after, BYTES, &labels)
    };
    assert_eq!((ours("write"), bytes("write")), (zfs[0], zfs[1]));
    assert_eq!((ours("read"), bytes("read")), (zfs[2], zfs[3]));
    assert_eq!(
        (ours("discard"), bytes("discard")),
        (stat[4], stat[5] * 512)
    );
    assert_eq!((ours("flush"), bytes("flush")), (7, 0));
    assert_eq!(ours("flush"), commits);
    assert_eq!(count(&before, &after, "zvols/other", "write"), 1);
    assert_eq!(grew(&before, &after, ERRORS, &[("pool", "zvols")]), 0);
    for reason in ["zfs_zvol_start", "zfs_series"] {
        assert_eq!(lost(&probes, reason), 0, "{reason}");
    }
}

#[test]
fn zfs_zvol_latency_is_that_of_a_slow_vdev() {
    let Some(pool) = Pool::make("zvslow", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.zvol_latency"]);
    let disk = Disk::make("zvslow/vm");
    // What is read comes from the vdev each time.
    sh("zfs set primarycache=metadata zvslow/vm");
    for i in 0..30 {
        disk.write(i << 20, BLOCK);
    }
    pool.sync();
    disk.read(0, BLOCK);
    pool.delay(&pool.vdevs[0], 200);
    let before = probes.snapshot();
    let timed = |what: &dyn Fn()| {
        let start = Instant::now();
        what();
        start.elapsed()
    };
    let mut felt = [Duration::ZERO; 3];
    for i in 1..10 {
        felt[0] += timed(&|| disk.read(i * (3 << 20), BLOCK));
        felt[1] += timed(&|| disk.write(i * (3 << 20), BLOCK));
        felt[2] += timed(&|| disk.file.sync_all().unwrap());
    }
    let after = probes.snapshot();
    Pool::heal();
    // What was put in is a bound from below, and what we felt one from above.
    // A write goes into memory; a flush waits for the log.
    for ((op, felt), slow) in ["read", "write", "flush"]
        .into_iter()
        .zip(felt)
        .zip([true, false, true])
    {
        let labels = [("dataset", "zvslow/vm"), ("op", op)];
        let histogram = gained(&before, &after, LATENCY, &labels);
        let ours = Duration::from_nanos(histogram.sum_ns);
        println!("{op}: {ours:?} of {felt:?}");
        assert_eq!(histogram.count(), 9, "{op}");
        assert!(ours <= felt, "{op}: {ours:?} {felt:?}");
        assert_eq!(
            ours >= 9 * Duration::from_millis(200),
            slow,
            "{op}: {ours:?}"
        );
    }
}

#[test]
fn zfs_zvol_errors_and_names_that_change() {
    let Some(pool) = Pool::make("zvname", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.zvol_errors", "zfs.zvol_bytes"]);
    let disk = Disk::make("zvname/vm");
    let before = probes.snapshot();
    // What is read comes from the only vdev each time, and fails there.
    sh("zfs set primarycache=metadata zvname/vm");
    for i in 0..4 {
        disk.write(i * (4 << 20), BLOCK);
    }
    pool.sync();
    disk.read(0, BLOCK);
    sh(&format!(
        "zinject -d {} -e io -T read -f 100 zvname",
        pool.vdevs[0]
    ));
    for i in 1..4 {
        let failed = disk.file.read_at(Aligned::of(BLOCK).bytes(), i * (4 << 20));
        assert_eq!(failed.unwrap_err().raw_os_error(), Some(libc::EIO));
    }
    Pool::heal();
    let name = disk.name.clone();
    drop(disk);
    let middle = probes.snapshot();
    let at = |snapshot: &Snapshot, dataset| count(&before, snapshot, dataset, "write");
    let of = |metric, op| {
        let labels = [("dataset", "zvname/vm"), ("op", op)];
        grew(&before, &middle, metric, &labels)
    };
    assert_eq!((of(ERRORS, "read"), of(ERRORS, "write")), (3, 0));
    assert_eq!(of(BYTES, "read"), BLOCK as u64);
    assert_eq!(count(&before, &middle, "zvname/vm", "read"), 4);
    assert_eq!(at(&middle, "zvname/vm"), 4);

    sh("zfs rename zvname/vm zvname/new");
    let _ = probes.snapshot();
    wait_for("the disk's new name", || {
        fs::metadata(format!("/dev/{name}")).is_ok()
    });
    let renamed = open(&name);
    renamed.write_all_at(Aligned::of(BLOCK).bytes(), 0).unwrap();
    drop(renamed);
    let after = probes.snapshot();
    assert_eq!(at(&after, "zvname/vm"), 4);
    assert_eq!(at(&after, "zvname/new"), 1);

    // What is gone stays in the sums.
    sh("zfs destroy zvname/new");
    let gone = probes.snapshot();
    assert_eq!(at(&gone, "zvname/new"), 1);
    assert_eq!(gone.series(LATENCY, &[("dataset", "unknown")]).count(), 0);
}
