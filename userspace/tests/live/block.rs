//! Block devices against the kernel's own account, /sys/block/NAME/stat
//! (Documentation/block/stat.rst).

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::AsRawFd as _,
    path::Path,
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use kldtrace::kernel::loader::Options;

use super::{
    common::{Probes, grew},
    compared::{Compared, DEVICE, QUEUE, SIGNALS, STAT, at_least},
    disk::{BLOCK, Loop, SlowFile, read, wait_in_flight, write},
};

fn sync(disk: &File) -> Result<(), i32> {
    // SAFETY: an open descriptor.
    match unsafe { libc::fsync(disk.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
    }
}

fn image(folder: &Path, blocks: usize) -> std::path::PathBuf {
    let path = folder.join("image");
    let mut file = File::create(&path).unwrap();
    file.write_all(&vec![1; blocks * BLOCK]).unwrap();
    path
}

#[test]
fn block_counts_are_the_kernels() {
    for avoid in [vec![], vec!["tp_btf"]] {
        let options = Options {
            avoid: avoid.clone(),
            ..Options::default()
        };
        let Some(mut probes) = Probes::attach_with(SIGNALS, &options) else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let device = Loop::on(&image(folder.path(), 1024));
        let (plain, through) = (device.open(0), device.open(libc::O_DSYNC));
        let seen = Compared::over(&mut probes, &device, || {
            for block in 0..100 {
                read(&plain, block * 2).unwrap();
            }
            for block in 0..50 {
                write(&plain, block * 2).unwrap();
            }
            // Bare flushes, and writes that end in one (FUA, flush sequence).
            for block in 0..7 {
                sync(&plain).unwrap();
                write(&through, block).unwrap();
            }
            device.discard(0, 1 << 20);
            device.discard(2 << 20, 4096);
        });
        let hooks: Vec<_> = probes
            .0
            .loaded()
            .iter()
            .flat_map(|loaded| &loaded.attached)
            .map(|a| a.hook.attach)
            .collect();
        println!("{hooks:?}: {:?}", seen.after.1);
        assert!(avoid.is_empty() || hooks.iter().all(|hook| hook.kind() == "raw_tp"));
        seen.counts_agree();
        assert!(seen.stat(0) >= 100 && seen.stat(15) >= 14 && seen.stat(11) == 2);
        for (op, ..) in STAT {
            assert_eq!(seen.errors(op), 0, "{op}");
            // Bare flushes are writes without data that never reach the
            // device; their time is that of the flush.
            let bare = if op == "write" { 14 } else { 0 };
            for metric in [QUEUE, DEVICE] {
                let observed = seen.latency(metric, op).count();
                assert_eq!(observed, seen.requests(op) - bare, "{op} {metric}");
            }
        }
    }
}

#[test]
fn block_device_latency_is_that_of_a_slow_device() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let slow = SlowFile::mount();
    let device = Loop::on(&slow.path);
    let disk = device.open(0);
    slow.does.delay.store(20, SeqCst);
    for (op, each) in [
        ("read", &read as &dyn Fn(&File, u64) -> Result<(), i32>),
        ("write", &write),
        ("flush", &|disk, _| sync(disk)),
    ] {
        slow.does.held.store(0, SeqCst);
        let mut waited = Duration::ZERO;
        let seen = Compared::over(&mut probes, &device, || {
            let since = Instant::now();
            for block in 0..30 {
                each(&disk, block).unwrap();
            }
            waited = since.elapsed();
        });
        let latency = seen.latency(DEVICE, op);
        let held = slow.does.held.load(SeqCst) as f64 / 1e9;
        println!(
            "{op}: held {held} s, {} s, waited {waited:?}",
            latency.sum_seconds()
        );
        // No shorter than the device took, no longer than the caller waited.
        assert_eq!(
            (latency.count(), at_least(&latency, 0.02)),
            (30, 30),
            "{op}"
        );
        assert!(latency.sum_seconds() >= held, "{op}");
        assert!(latency.sum_seconds() <= waited.as_secs_f64(), "{op}");
        seen.counts_agree();
        if op != "flush" {
            seen.times_agree(op);
        }
    }
}

/// A device takes as many requests as it has tags; what is more waits in the
/// scheduler, and only that is queue time.
#[test]
fn block_queue_latency_is_that_of_a_full_device() {
    const BEHIND: u64 = 32;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let slow = SlowFile::mount();
    let device = Loop::on(&slow.path);
    // Without a scheduler it is the number of the device's own tags.
    let tags: u64 = fs::read_to_string(device.queue("nr_requests"))
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    fs::write(device.queue("scheduler"), "mq-deadline").unwrap();
    fs::write(device.queue("nomerges"), "2").unwrap();
    let disk = device.open(0);
    slow.does.hold.store(true, SeqCst);
    let all = tags + BEHIND;
    let seen = Compared::over(&mut probes, &device, || {
        thread::scope(|scope| {
            for block in 0..all {
                let disk = &disk;
                scope.spawn(move || read(disk, block * 2).unwrap());
            }
            wait_in_flight(&device, all);
            thread::sleep(Duration::from_millis(200));
            slow.does.hold.store(false, SeqCst);
        });
    });
    let queue = seen.latency(QUEUE, "read");
    let long = at_least(&queue, 0.2);
    println!("{long} of {} waited for one of {tags} tags", queue.count());
    assert_eq!(queue.count(), all);
    // One that the machine kept from its CPU while it was sent also counts.
    assert!((BEHIND..BEHIND + 16).contains(&long), "{queue:?}");
    // All those on the device were held there for as long.
    assert!(at_least(&seen.latency(DEVICE, "read"), 0.2) >= tags);
    seen.counts_agree();
    seen.times_agree("read");
}

#[test]
fn block_errors_are_counted_each() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let slow = SlowFile::mount();
    let device = Loop::on(&slow.path);
    let (plain, through) = (device.open(0), device.open(libc::O_DSYNC));
    slow.does.fail_odd.store(libc::EIO, SeqCst);
    let seen = Compared::over(&mut probes, &device, || {
        for block in 0..10 {
            let failed = if block % 2 == 1 {
                Err(libc::EIO)
            } else {
                Ok(())
            };
            assert_eq!(read(&plain, block), failed);
            assert_eq!(write(&plain, block), failed);
        }
        // Its data fails inside a flush sequence: one error, not two.
        assert_eq!(write(&through, 11), Err(libc::EIO));
        slow.does.fail_sync.store(libc::EIO, SeqCst);
        assert_eq!(sync(&plain), Err(libc::EIO));
    });
    seen.counts_agree();
    // The flush fails, and with it the write without data that asked for it.
    let errors = ["read", "write", "flush"].map(|op| seen.errors(op));
    assert_eq!(errors, [5, 5 + 1 + 1, 1]);
}

#[test]
fn block_requests_that_end_in_parts_count_once() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 64);
    let device = Loop::on(&path);
    let disk = device.open(0);
    // The loop device reads what is left of block 10, then finds nothing.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(10 * 4096 + 512)
        .unwrap();
    let seen = Compared::over(&mut probes, &device, || {
        assert_eq!(read(&disk, 10), Err(libc::EIO));
        assert_eq!(read(&disk, 20), Err(libc::EIO));
    });
    seen.counts_agree();
    assert_eq!((seen.stat(0), seen.errors("read")), (2, 2));
    assert_eq!(seen.latency(DEVICE, "read").count(), 2);
}

#[test]
fn block_queues_without_statistics_lose_times_and_say_so() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let device = Loop::on(&image(folder.path(), 64));
    fs::write(device.queue("iostats"), "0").unwrap();
    let disk = device.open(0);
    let seen = Compared::over(&mut probes, &device, || {
        for block in 0..25 {
            read(&disk, block).unwrap();
        }
    });
    assert_eq!(seen.stat(0), 0, "the kernel does not count them");
    assert_eq!(seen.requests("read"), 25);
    assert_eq!(seen.latency(DEVICE, "read").count(), 0);
    let reason = [("reason", "block_stamp")];
    // Of another disk there may be more.
    let lost = grew(&seen.before.0, &seen.after.0, "kldtrace_losses", &reason);
    assert!(lost >= 25, "{lost}");
}

#[test]
fn block_devices_that_go_keep_their_name_and_numbers() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = image(folder.path(), 64);
    let device = Loop::on(&path);
    let name = device.name.clone();
    let labels = [("device", name.as_str()), ("op", "read")];
    let requests = |probes: &mut Probes| {
        let snapshot = probes.snapshot();
        let latency = snapshot.histogram(DEVICE, &labels).count();
        (
            snapshot.integer("kldtrace_block_requests", &labels),
            latency,
        )
    };
    for block in 0..8 {
        read(&device.open(0), block).unwrap();
    }
    let alive = requests(&mut probes);
    drop(device);
    assert!(
        !Path::new("/sys/block").join(&name).exists(),
        "{name} is still there"
    );
    // The second reading has nothing of it in the map any more.
    for _ in 0..2 {
        let gone = requests(&mut probes);
        assert!(gone >= alive && gone.0 == gone.1, "{alive:?} {gone:?}");
    }
    assert!(alive.0 >= 8);
}
