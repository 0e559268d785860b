//! Operations: counts and bytes as issued, and as OpenZFS counts them.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    sync::Barrier,
    thread,
};

use super::{Pool, attach, lost};
use crate::common::{Snapshot, gained, grew, sh};

pub const LATENCY: &str = "kldtrace_zfs_op_latency_seconds";
const BYTES: &str = "kldtrace_zfs_op_bytes";
const ERRORS: &str = "kldtrace_zfs_op_errors";
const MEMORY: &str = "kldtrace_zfs_ops_from_memory";
const BLOCK: usize = 4096;

/// Operations of a kind on a dataset between two snapshots.
pub fn count(before: &Snapshot, after: &Snapshot, dataset: &str, op: &str) -> u64 {
    gained(before, after, LATENCY, &[("dataset", dataset), ("op", op)]).count()
}

#[test]
fn zfs_operations_are_counted_as_issued_and_as_zfs_counts() {
    let Some(pool) = Pool::make("ops", 1, "") else {
        return;
    };
    let mut probes = attach(&[
        "zfs.op_latency",
        "zfs.op_bytes",
        "zfs.op_errors",
        "zfs.ops_from_memory",
    ]);
    let data = pool.dataset();
    let objset = |number| pool.objset(&data, number);
    let kstats = ["writes", "nwritten", "reads", "nread"];
    let zfs_before = kstats.map(objset);
    let before = probes.snapshot();

    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(pool.file("file"))
        .unwrap();
    let mut block = [7; BLOCK];
    for i in 0..300 {
        file.write_all_at(&block, i * BLOCK as u64).unwrap();
    }
    for _ in 0..7 {
        file.sync_all().unwrap();
    }
    for i in 0..200 {
        file.read_exact_at(&mut block, i * BLOCK as u64).unwrap();
    }
    for _ in 0..5 {
        drop(File::open(pool.file("file")).unwrap());
    }
    assert_eq!(fs::read_dir(pool.file("")).unwrap().count(), 1);

    let after = probes.snapshot();
    let zfs_after = kstats.map(objset);
    let zfs: Vec<u64> = zfs_after
        .iter()
        .zip(zfs_before)
        .map(|(a, b)| a - b)
        .collect();
    assert_eq!(zfs, [300, 300 * 4096, 200, 200 * 4096]);
    for (op, expected) in [("write", 300), ("read", 200), ("fsync", 7), ("open", 6)] {
        assert_eq!(count(&before, &after, &data, op), expected, "{op}");
    }
    // Until the end of the directory is told: two calls or more.
    assert!(count(&before, &after, &data, "readdir") >= 2);
    for (op, bytes) in [("write", zfs[1]), ("read", zfs[3])] {
        let labels = [("dataset", data.as_str()), ("op", op), ("pool", "ops")];
        assert_eq!(grew(&before, &after, BYTES, &labels), bytes, "{op}");
    }
    // What was just written is in memory: a read of it waits for nothing.
    let labels = [("dataset", data.as_str()), ("op", "read")];
    let memory = grew(&before, &after, MEMORY, &labels);
    assert!((150..=200).contains(&memory), "{memory}");
    assert_eq!(grew(&before, &after, ERRORS, &[("dataset", &data)]), 0);
}

#[test]
fn zfs_operations_that_fail_are_counted() {
    let Some(pool) = Pool::make("fails", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_errors"]);
    let file = File::create(pool.file("file")).unwrap();
    // FS_IOC_SETFLAGS and FS_IMMUTABLE_FL of include/uapi/linux/fs.h.
    let flags: libc::c_int = 0x10;
    // SAFETY: the ioctl reads a number, which lives through the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), 0x4008_6602, &raw const flags) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    let before = probes.snapshot();
    for _ in 0..3 {
        let error = (&file).write(b"x").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }
    let after = probes.snapshot();
    let labels = [
        ("dataset", "fails/data"),
        ("op", "write"),
        ("sync", "async"),
    ];
    assert_eq!(grew(&before, &after, ERRORS, &labels), 3);
}

#[test]
fn zfs_sync_operations_are_told_from_others() {
    let Some(pool) = Pool::make("sync", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    let before = probes.snapshot();
    let mut file = File::create(pool.file("file")).unwrap();
    file.write_all(&[1; BLOCK]).unwrap();
    sh(&format!("zfs set sync=always {}", pool.dataset()));
    for _ in 0..3 {
        file.write_all(&[1; BLOCK]).unwrap();
    }
    let after = probes.snapshot();
    let writes = |sync| {
        let labels = [("dataset", "sync/data"), ("op", "write"), ("sync", sync)];
        gained(&before, &after, LATENCY, &labels).count()
    };
    assert_eq!((writes("async"), writes("sync")), (1, 3));
}

#[test]
fn zfs_thousand_threads_leave_nothing_behind() {
    const THREADS: usize = 1000;
    let Some(pool) = Pool::make("threads", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    let before = probes.snapshot();
    // All of them are inside fsync at once: each request takes a while.
    pool.delay(&pool.vdevs[0], 300);
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for i in 0..THREADS {
            let (start, pool) = (&start, &pool);
            thread::Builder::new()
                .stack_size(64 << 10)
                .spawn_scoped(scope, move || {
                    let mut file = File::create(pool.file(&format!("f{i}"))).unwrap();
                    file.write_all(b"some").unwrap();
                    start.wait();
                    file.sync_all().unwrap();
                })
                .unwrap();
        }
    });
    Pool::heal();
    let after = probes.snapshot();
    for op in ["write", "fsync"] {
        assert_eq!(
            count(&before, &after, "threads/data", op),
            THREADS as u64,
            "{op}"
        );
    }
    for reason in ["zfs_thread", "zfs_return", "zfs_series"] {
        assert_eq!(lost(&probes, reason), 0, "{reason}");
    }
    // Nobody waited longer than the test took, or less than nothing.
    let labels = [("dataset", "threads/data"), ("op", "fsync")];
    let fsync = gained(&before, &after, LATENCY, &labels);
    assert!(fsync.overflow == 0 && fsync.zero == 0);
}

#[test]
fn zfs_mapped_files_count_their_faults() {
    const FAULTS: &str = "kldtrace_zfs_mmap_read_latency_seconds";
    let Some(pool) = Pool::make("mapped", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.mmap_read_latency"]);
    fs::write(pool.file("file"), vec![3; 1 << 20]).unwrap();
    let before = probes.snapshot();
    let file = File::open(pool.file("file")).unwrap();
    let length = 1 << 20;
    // SAFETY: a fresh mapping of a file that stays, read within its length and
    // unmapped after; madvise only forbids reading ahead.
    let sum: u64 = unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        libc::madvise(map, length, libc::MADV_RANDOM);
        let bytes = map.cast::<u8>();
        let sum = (0..length)
            .step_by(BLOCK)
            .map(|at| u64::from(*bytes.add(at)))
            .sum();
        libc::munmap(map, length);
        sum
    };
    assert_eq!(sum, 3 * 256);
    let after = probes.snapshot();
    let labels = [("dataset", "mapped/data"), ("op", "mmap_read")];
    let faults = gained(&before, &after, FAULTS, &labels).count();
    // A page each; with pages read around a fault, fewer.
    assert!((16..=256).contains(&faults), "{faults}");
}
