//! Operations that come many at once, from other threads than the caller's, or
//! inside each other: none is lost, and none is taken for another.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    ptr,
    sync::{
        Barrier,
        atomic::{AtomicI32, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use io_uring::{IoUring, opcode, squeue, types::Fd};

use super::{Pool, attach, lost, ops::LATENCY, ops::count, stages};
use crate::common::{Probes, Snapshot, gained, sh};

const BLOCK: usize = 4096;
const REQUESTS: usize = 64;
fn open(pool: &Pool) -> File {
    OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(pool.file("file"))
        .unwrap()
}

/// Nothing was lost; and each kind of operation took what its stages took, no
/// longer than the test and no less than nothing.
fn all_is_whole(before: &Snapshot, after: &Snapshot, dataset: &str, probes: &Probes) {
    for reason in ["zfs_thread", "zfs_return", "zfs_series"] {
        assert_eq!(lost(probes, reason), 0, "{reason}");
    }
    for op in ["read", "write", "fsync"] {
        let labels = [("dataset", dataset), ("op", op)];
        let whole = gained(before, after, LATENCY, &labels);
        assert!(whole.zero == 0 && whole.overflow == 0, "{op}: {whole:?}");
        let parts = stages::sum(before, after, &labels);
        // An operation that waited for nothing has no stages.
        assert!(parts <= whole.sum_ns, "{op}: {parts} of {}", whole.sum_ns);
    }
}

/// include/uapi/linux/aio_abi.h
const IOCB_CMD_PREAD: u16 = 0;
const IOCB_CMD_PWRITE: u16 = 1;
const IOCB_CMD_FSYNC: u16 = 2;

/// Hands requests to the kernel in one call, and waits for all of them.
fn aio(requests: &mut [libc::iocb]) {
    let mut context: libc::c_ulong = 0;
    let mut all: Vec<*mut libc::iocb> = requests.iter_mut().map(ptr::from_mut).collect();
    let number = libc::c_long::try_from(all.len()).unwrap();
    // struct io_event: data, obj, res, res2.
    let mut events = vec![[0_i64; 4]; all.len()];
    // SAFETY: requests, their buffers and the events live until the last call,
    // which waits for all.
    unsafe {
        assert_eq!(
            libc::syscall(libc::SYS_io_setup, number, &raw mut context),
            0
        );
        let taken = libc::syscall(libc::SYS_io_submit, context, number, all.as_mut_ptr());
        assert_eq!(taken, number, "{}", std::io::Error::last_os_error());
        let done = libc::syscall(
            libc::SYS_io_getevents,
            context,
            number,
            number,
            events.as_mut_ptr(),
            ptr::null_mut::<libc::timespec>(),
        );
        assert_eq!(done, number);
        libc::syscall(libc::SYS_io_destroy, context);
    }
    for (event, request) in events.iter().zip(requests) {
        assert!(event[2] >= 0 && event[2].cast_unsigned() <= request.aio_nbytes);
    }
}

#[test]
fn zfs_operations_of_aio_are_counted() {
    let Some(pool) = Pool::make("aio", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    let data = pool.dataset();
    let objset = |number| pool.objset(&data, number);
    let zfs_before = ["writes", "reads"].map(objset);
    let file = open(&pool);
    let mut buffer = vec![5; BLOCK];
    let mut request = |opcode: u16, at: usize| {
        // SAFETY: plain numbers.
        let mut request: libc::iocb = unsafe { std::mem::zeroed() };
        request.aio_lio_opcode = opcode;
        request.aio_fildes = file.as_raw_fd().cast_unsigned();
        if opcode != IOCB_CMD_FSYNC {
            request.aio_buf = buffer.as_mut_ptr() as u64;
            request.aio_nbytes = BLOCK as u64;
            request.aio_offset = i64::try_from(at * BLOCK).unwrap();
        }
        request
    };
    let before = probes.snapshot();
    for opcode in [IOCB_CMD_PWRITE, IOCB_CMD_PREAD] {
        let mut requests: Vec<_> = (0..REQUESTS).map(|at| request(opcode, at)).collect();
        aio(&mut requests);
    }
    // Done by a thread of the kernel.
    aio(&mut [request(IOCB_CMD_FSYNC, 0)]);
    let after = probes.snapshot();
    let of = |op| count(&before, &after, &data, op);
    assert_eq!((of("write"), of("read"), of("fsync")), (64, 64, 1));
    let zfs = ["writes", "reads"].map(objset);
    assert_eq!([zfs[0] - zfs_before[0], zfs[1] - zfs_before[1]], [64, 64]);
    all_is_whole(&before, &after, &data, &probes);
}

#[test]
fn zfs_operations_of_io_uring_are_counted() {
    let Some(pool) = Pool::make("uring", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    let data = pool.dataset();
    let objset = |number| pool.objset(&data, number);
    let zfs_before = ["writes", "reads"].map(objset);
    let file = open(&pool);
    let fd = Fd(file.as_raw_fd());
    let mut buffers = vec![vec![6_u8; BLOCK]; REQUESTS];
    let mut ring = IoUring::new(REQUESTS as u32).unwrap();
    // Half of them in any case by threads of the ring, many at once.
    let flags = |at: usize| match at % 2 {
        0 => squeue::Flags::ASYNC,
        _ => squeue::Flags::empty(),
    };
    let mut run = |entries: Vec<squeue::Entry>, bytes: usize| {
        let number = entries.len();
        for entry in &entries {
            // SAFETY: buffers and file live until all have completed, below.
            unsafe { ring.submission().push(entry).unwrap() };
        }
        ring.submit_and_wait(number).unwrap();
        let results: Vec<_> = ring.completion().map(|done| done.result()).collect();
        assert_eq!(results, vec![i32::try_from(bytes).unwrap(); number]);
    };
    let before = probes.snapshot();
    let offset = |at: usize| (at * BLOCK) as u64;
    let writes = buffers.iter().enumerate().map(|(at, buffer)| {
        let write = opcode::Write::new(fd, buffer.as_ptr(), BLOCK as u32);
        write.offset(offset(at)).build().flags(flags(at))
    });
    run(writes.collect(), BLOCK);
    let reads = buffers.iter_mut().enumerate().map(|(at, buffer)| {
        let read = opcode::Read::new(fd, buffer.as_mut_ptr(), BLOCK as u32);
        read.offset(offset(at)).build().flags(flags(at))
    });
    run(reads.collect(), BLOCK);
    run((0..8).map(|_| opcode::Fsync::new(fd).build()).collect(), 0);
    let after = probes.snapshot();
    let of = |op| count(&before, &after, &data, op);
    assert_eq!((of("write"), of("read"), of("fsync")), (64, 64, 8));
    let zfs = ["writes", "reads"].map(objset);
    assert_eq!([zfs[0] - zfs_before[0], zfs[1] - zfs_before[1]], [64, 64]);
    all_is_whole(&before, &after, &data, &probes);
}

#[test]
fn zfs_faults_inside_a_write_are_told_from_it() {
    const FAULTS: &str = "kldtrace_zfs_mmap_read_latency_seconds";
    const LENGTH: usize = 1 << 20;
    let Some(pool) = Pool::make("inside", 1, "") else {
        return;
    };
    std::fs::write(pool.file("source"), vec![8; LENGTH]).unwrap();
    // No page of it is in memory afterwards.
    sh("zpool export inside && zpool import -d /tmp inside");
    let mut probes = attach(&[
        "zfs.op_latency",
        "zfs.stage_latency",
        "zfs.mmap_read_latency",
    ]);
    let data = pool.dataset();
    let source = File::open(pool.file("source")).unwrap();
    let mut target = open(&pool);
    let before = probes.snapshot();
    // SAFETY: a fresh mapping of a file that stays; only the kernel reads it,
    // within its length, and it is unmapped after.
    unsafe {
        let map = libc::mmap(
            ptr::null_mut(),
            LENGTH,
            libc::PROT_READ,
            libc::MAP_SHARED,
            source.as_raw_fd(),
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        // What write(2) takes from the mapping, it has to fetch first.
        let bytes = std::slice::from_raw_parts(map.cast::<u8>(), LENGTH);
        assert_eq!(target.write(bytes).unwrap(), LENGTH);
        libc::munmap(map, LENGTH);
    }
    let after = probes.snapshot();
    assert_eq!(count(&before, &after, &data, "write"), 1);
    let labels = [("dataset", data.as_str()), ("op", "mmap_read")];
    let faults = gained(&before, &after, FAULTS, &labels);
    let write = gained(
        &before,
        &after,
        LATENCY,
        &[("dataset", &data), ("op", "write")],
    );
    println!(
        "{} faults, {} of {} ns",
        faults.count(),
        faults.sum_ns,
        write.sum_ns
    );
    assert!(faults.count() > 0);
    assert!(faults.sum_ns < write.sum_ns);
    all_is_whole(&before, &after, &data, &probes);
}

/// Places of threads in probes/src/zfs/threads.rs.
const PLACES: i32 = 1024;

/// Runs these at the same time in threads whose numbers lead to one place.
fn in_one_place<const N: usize>(work: [&(dyn Fn() + Sync); N]) {
    let place = AtomicI32::new(-1);
    let start = Barrier::new(N);
    thread::scope(|scope| {
        for work in work {
            let (place, start) = (&place, &start);
            loop {
                let (tell, told) = mpsc::sync_channel(1);
                let thread = thread::Builder::new().stack_size(64 << 10);
                thread
                    .spawn_scoped(scope, move || {
                        let mine = nix::unistd::gettid().as_raw() % PLACES;
                        place
                            .compare_exchange(-1, mine, Ordering::SeqCst, Ordering::SeqCst)
                            .ok();
                        let is = place.load(Ordering::SeqCst) == mine;
                        tell.send(is).unwrap();
                        if is {
                            start.wait();
                            work();
                        }
                    })
                    .unwrap();
                if told.recv().unwrap() {
                    break;
                }
            }
        }
    });
}

#[test]
fn zfs_threads_with_one_place_are_told_apart() {
    const FSYNCS: u64 = 10;
    const READS: u64 = 500;
    let Some(pool) = Pool::make("place", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.stage_latency"]);
    let file = open(&pool);
    file.write_all_at(&[7; BLOCK], 0).unwrap();
    file.sync_all().unwrap();
    let before = probes.snapshot();

    // Two are mostly in fsync, one of them in task storage, and so is the third that
    // reads.
    pool.delay(&pool.vdevs[0], 50);
    let sync = |name: &str| {
        let file = File::create(pool.file(name)).unwrap();
        for i in 0..FSYNCS {
            file.write_all_at(&[3; BLOCK], i * BLOCK as u64).unwrap();
            file.sync_all().unwrap();
        }
    };
    let read = || {
        let mut block = [0; BLOCK];
        for _ in 0..READS {
            file.read_exact_at(&mut block, 0).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
    };
    in_one_place([&|| sync("one"), &|| sync("other"), &read]);
    Pool::heal();
    let after = probes.snapshot();
    let data = pool.dataset();
    for (op, expected) in [
        ("write", 2 * FSYNCS),
        ("fsync", 2 * FSYNCS),
        ("read", READS),
    ] {
        assert_eq!(count(&before, &after, &data, op), expected, "{op}");
    }
    all_is_whole(&before, &after, &data, &probes);
    // Each was told its own stages: all waited for the log, 50 ms and more.
    let labels = [
        ("dataset", data.as_str()),
        ("op", "fsync"),
        ("stage", "zil_commit"),
    ];
    let waited = stages::sum(&before, &after, &labels);
    assert!(waited >= 2 * FSYNCS * 50_000_000, "{waited}");

    // Whoever comes now finds the place free again, or is told where to go.
    let before = probes.snapshot();
    in_one_place([&read, &read]);
    let after = probes.snapshot();
    assert_eq!(count(&before, &after, &data, "read"), 2 * READS);
    for reason in ["zfs_thread", "zfs_return"] {
        assert_eq!(lost(&probes, reason), 0, "{reason}");
    }
}
