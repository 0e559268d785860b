//! Reads by trampolines while something is mounted, and by probes otherwise.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use kldtrace::{
    catalogue,
    kernel::{loader::Options, trampolines},
};

use super::{Pool, attach, lost, ops::LATENCY, ops::count};
use crate::{
    common::{Probes, gained, sh, skipped, wait_for},
    shared::patient,
};

const TRAMPOLINE: &str = "zpl_read_entry";
const PROBE: &str = "zpl_read_enter";

fn are_used() -> bool {
    let are = trampolines::are_safe();
    if !are {
        skipped("trampolines are not used on this kernel");
    }
    are
}

/// Whether this program is attached, and not the other.
fn by(probes: &Probes, program: &str) -> bool {
    let loaded = probes.0.loaded();
    let programs: Vec<_> = loaded.iter().flat_map(|one| one.programs()).collect();
    assert_ne!(programs.contains(&TRAMPOLINE), programs.contains(&PROBE));
    programs.contains(&program)
}

fn mount(is: bool) {
    if is {
        sh("zfs mount swaps && zfs mount swaps/data");
    } else {
        sh("zfs unmount swaps/data && zfs unmount swaps");
    }
}

/// A mount namespace of its own for this thread.
fn leave_namespace() {
    // SAFETY: this thread alone leaves it; the strings end.
    let done = unsafe {
        libc::unshare(libc::CLONE_NEWNS) == 0
            && libc::mount(
                c"none".as_ptr(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) == 0
    };
    assert!(done, "{}", io::Error::last_os_error());
}

/// Reads a file of a pool, and finds the reads.
fn read_and_count(probes: &mut Probes, pool: &Pool) {
    fs::write(pool.file("file"), [7; 4096]).unwrap();
    let before = probes.snapshot();
    let file = File::open(pool.file("file")).unwrap();
    for _ in 0..1000 {
        file.read_exact_at(&mut [0; 64], 0).unwrap();
    }
    let after = probes.snapshot();
    assert_eq!(count(&before, &after, &pool.dataset(), "read"), 1000);
}

#[test]
fn zfs_reads_by_trampolines_are_counted_as_issued() {
    if !are_used() {
        return;
    }
    let Some(pool) = Pool::make("tramp", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency"]);
    read_and_count(&mut probes, &pool);
    assert!(by(&probes, TRAMPOLINE));
}

#[test]
fn zfs_reads_without_trampolines_are_counted_as_issued() {
    let Some(pool) = Pool::make("avoids", 1, "") else {
        return;
    };
    let wanted = [catalogue::find("zfs.op_latency").unwrap()];
    for avoid in ["fentry", "fexit"] {
        let options = Options {
            avoid: vec![avoid],
            ..Options::default()
        };
        let mut probes = Probes(patient(&wanted, &options));
        read_and_count(&mut probes, &pool);
        assert!(by(&probes, PROBE));
    }
}

/// Says so when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn zfs_reads_go_on_being_counted_while_trampolines_come_and_go() {
    if !are_used() {
        return;
    }
    let Some(pool) = Pool::make("swaps", 1, "") else {
        return;
    };
    fs::write(pool.file("file"), [7; 4096]).unwrap();
    let mut probes = attach(&["zfs.op_latency"]);
    let before = probes.snapshot();
    let lost_before = lost(&probes, "zfs_return");
    let (ends, calm) = (AtomicBool::new(false), AtomicBool::new(false));
    let issued = thread::scope(|scope| {
        let (open, opened) = mpsc::channel();
        // It reads where it has the dataset mounted, whoever else has or has not.
        let (pool, ends, calm) = (&pool, &ends, &calm);
        let reader = scope.spawn(move || {
            leave_namespace();
            let file = File::open(pool.file("file")).unwrap();
            open.send(()).unwrap();
            let mut issued = 0_u64;
            while !ends.load(Ordering::Relaxed) {
                file.read_exact_at(&mut [0; 64], 0).unwrap();
                issued += 1;
                if calm.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                }
            }
            issued
        });
        // Also where this fails: else the scope waits for the reader.
        let end = Ends(ends);
        opened.recv().unwrap();
        for _ in 0..3 {
            mount(false);
            wait_for("probes at reads", || {
                probes.snapshot();
                by(&probes, PROBE)
            });
            thread::sleep(Duration::from_millis(200));
            mount(true);
            wait_for("trampolines at reads", || {
                probes.snapshot();
                by(&probes, TRAMPOLINE)
            });
            // The probe at returns goes after two seconds. Until shortly before
            // nothing changes: reads then only take time.
            calm.store(true, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(1700));
            calm.store(false, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(500));
            probes.snapshot();
        }
        drop(end);
        reader.join().unwrap()
    });
    let after = probes.snapshot();
    let labels = [("pool", "swaps"), ("op", "read")];
    let counted = gained(&before, &after, LATENCY, &labels).count();
    let lost = lost(&probes, "zfs_return") - lost_before;
    println!("{issued} reads, {counted} counted, {lost} lost");
    assert!(issued > 1000, "{issued}");
    // One may be under way each time when trampolines go.
    assert!(lost <= 3, "{lost}");
    assert_eq!(counted + lost, issued);
}
