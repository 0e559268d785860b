//! The table of what is remembered of tasks.

use std::{
    fs,
    sync::{Arc, Barrier},
    thread,
    time::Duration,
};

use kldtrace::kernel::loader::Options;

use super::{REASONS, SWITCHES};
use crate::{
    common::{Probes, Snapshot, grew, wait_for},
    load::{Cgroup, MILLISECOND, Worker, sleep_for},
};

const SIGNALS: &[&str] = &[
    "sched.runqueue_latency",
    "sched.oncpu_time",
    "sched.offcpu_time",
    "sched.context_switches",
    "self.losses",
    "self.map_entries",
    "self.map_max_entries",
];

fn of_tasks(snapshot: &Snapshot, metric: &str) -> u64 {
    snapshot.integer(metric, &[("map", "tasks")])
}

fn entries(probes: &mut Probes) -> u64 {
    of_tasks(&probes.snapshot(), "kldtrace_map_entries")
}

fn lost(before: &Snapshot, after: &Snapshot) -> u64 {
    let labels = [("reason", "sched_departure")];
    grew(before, after, "kldtrace_losses", &labels)
}

/// Tasks that there are, as /proc has them: those on their way out are no longer
/// there.
fn alive() -> u64 {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let threads = processes.filter_map(|process| fs::read_dir(process.path().join("task")).ok());
    threads.map(|tasks| tasks.count() as u64).sum()
}

/// Whichever signals are on, who ends leaves the table.
#[test]
fn tasks_leave_the_table_when_they_end() {
    const AT_ONCE: u64 = 400;
    let own = &SIGNALS[4..];
    for some in [SIGNALS, &[&["sched.runqueue_latency"], own].concat()] {
        let Some(mut probes) = Probes::attach(some) else {
            return;
        };
        let before = probes.snapshot();
        for _ in 0..10 {
            let barrier = Arc::new(Barrier::new(AT_ONCE as usize + 1));
            let threads: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    let barrier = Arc::clone(&barrier);
                    thread::spawn(move || {
                        thread::sleep(Duration::from_millis(1));
                        barrier.wait();
                    })
                })
                .collect();
            wait_for("all to be remembered", || entries(&mut probes) >= AT_ONCE);
            barrier.wait();
            for thread in threads {
                thread.join().unwrap();
            }
        }
        wait_for("the table to hold the living alone", || {
            entries(&mut probes) <= alive()
        });
        println!("{} of {} alive", entries(&mut probes), alive());
        assert_eq!(lost(&before, &probes.snapshot()), 0);
    }
}

/// More tasks at once than there are places: what cannot be remembered is counted
/// as lost, and nothing is counted for another.
#[test]
fn tasks_beyond_the_table_are_counted() {
    const THREADS: u64 = 100;
    let least = Options {
        map_memory: 1,
        ..Options::default()
    };
    let Some(mut probes) = Probes::attach_with(SIGNALS, &least) else {
        return;
    };
    let cgroup = Cgroup::new("many");
    // Answers with the switches that the kernel has counted for it.
    let mut worker = Worker::start_in(&cgroup, |rounds| {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        sleep_for(5 * MILLISECOND);
                    }
                });
            }
        });
        // SAFETY: zeros are a valid `rusage`, which is ours.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
            (usage.ru_nvcsw + usage.ru_nivcsw).cast_unsigned()
        }
    });
    let start = worker.run(0);
    let before = probes.snapshot();
    worker.begin(50);
    wait_for("the table to be full", || {
        let now = probes.snapshot();
        of_tasks(&now, "kldtrace_map_entries") == of_tasks(&now, "kldtrace_map_max_entries")
    });
    let made = worker.end() - start;
    let after = probes.snapshot();
    let counted: u64 = REASONS
        .map(|reason| {
            let labels = [("unit", cgroup.unit.as_str()), ("reason", reason)];
            grew(&before, &after, SWITCHES, &labels)
        })
        .iter()
        .sum();
    let lost = lost(&before, &after);
    println!("{counted} of {made} switches, {lost} lost");
    // Its last switches, after its answer, and its threads' come on top of what it
    // has seen of itself.
    assert!(made >= THREADS * 50);
    assert!(counted < made && counted + lost >= made);
}
