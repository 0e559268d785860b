//! Off CPU: asleep, in the kernel, preempted.

use std::fs::{self, File};

use kldtrace::{kernel::cgroup2, quantile::Summary};
use kldtrace_exporters::model::Histogram;

use super::{Gained, OFFCPU, REASONS, RUNQUEUE, SIGNALS, SWITCHES, window};
use crate::{
    common::{Probes, assert_close, grew, skipped},
    load::{Cgroup, MILLISECOND, Worker, cpus, fifo, now, pin, sleep_for, spawn_into},
};

#[test]
fn sleep_is_voluntary_time_off_cpu() {
    const ROUNDS: u64 = 40;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cgroup = Cgroup::new("sleeps");
    // Answers with the time since its last answer: all of it was spent on and
    // off CPU inside two windows' ends.
    let mut last = 0;
    let mut sleeper = Worker::start_in(&cgroup, |rounds| {
        for _ in 0..rounds {
            sleep_for(30 * MILLISECOND);
        }
        let since = now() - last;
        last += since;
        since
    });
    pin(sleeper.pid, *cpus().last().unwrap());
    fifo(sleeper.pid, 1);
    // Once before: from here on it knows when it went to rest.
    sleeper.run(0);
    let (before, after, answers) = window(
        &mut probes,
        &cgroup.unit,
        &mut [&mut sleeper],
        &mut [],
        || ROUNDS,
    );
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    let off = gained.histogram(OFFCPU, "voluntary");
    assert!(off.count() > ROUNDS);
    // The timer is exact; waking up takes some microseconds.
    assert_close(Summary::of(&off).p50, 0.030, 0.0002);
    let off = REASONS.map(|reason| gained.histogram(OFFCPU, reason).sum_seconds());
    let all = off.iter().sum::<f64>() + gained.oncpu().sum_seconds();
    let wall = answers[0] as f64 / 1e9;
    println!("on and off CPU {all} s, its own clock {wall} s");
    // Its clock is disciplined by up to 500 ppm (adjtimex(2)), the run
    // queue's is not; 5 ms in case the hypervisor stops it after its last look.
    assert!((all - wall).abs() <= wall * 0.0005 + 0.005);
}

/// A vfork parent waits in TASK_KILLABLE, which is uninterruptible but for a
/// fatal signal (kernel/fork.c: wait_for_vfork_done). Its children live in
/// another cgroup: they do not count here.
#[test]
fn waiting_for_a_vfork_child_is_uninterruptible() {
    const ROUNDS: u64 = 30;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let (cgroup, children) = (Cgroup::new("vforks"), Cgroup::new("vforked"));
    let children = File::open(&children.path).unwrap();
    let mut parent = Worker::start_in(&cgroup, |rounds| {
        let mut waited = 0;
        for _ in 0..rounds {
            let start = now();
            let child = spawn_into(&children, libc::CLONE_VFORK as u64, || {
                sleep_for(25 * MILLISECOND);
            });
            waited += now() - start;
            // SAFETY: our own child.
            unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            // And some sleep that is not.
            sleep_for(MILLISECOND);
        }
        waited
    });
    fifo(parent.pid, 1);
    let (before, after, answers) = window(
        &mut probes,
        &cgroup.unit,
        &mut [&mut parent],
        &mut [],
        || ROUNDS,
    );
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    let off = gained.histogram(OFFCPU, "uninterruptible");
    let own = answers[0] as f64 / 1e9;
    println!(
        "{} times uninterruptible, {} s, its own clock {own} s",
        off.count(),
        off.sum_seconds()
    );
    // A lock that fork takes may add one; each sleep is one of the others.
    assert!(off.count() >= ROUNDS);
    assert!(gained.switches("voluntary") >= ROUNDS);
    // What is in its clock and not in the sleep it was on the CPU, or waited for it:
    // it forks, which takes long where the processor is emulated, and the child
    // begins after that.
    let times = ROUNDS as f64;
    let most = (own / times).max(0.026);
    assert!((0.024..most).contains(&Summary::of(&off).p50));
    let waited = ["wakeup", "preempted"].map(|reason| gained.histogram(RUNQUEUE, reason));
    let waited = waited.iter().map(Histogram::sum_seconds).sum::<f64>();
    let least = own - gained.oncpu().sum_seconds() - waited;
    let least = (times * 0.024).max(least - 0.001);
    assert!((least..own + 0.001).contains(&off.sum_seconds()));
}

/// A kernel thread without work waits in TASK_IDLE: uninterruptible, as no
/// signal is for it, but `I` and not `D` in /proc/PID/stat, and no load.
#[test]
fn an_idle_kernel_thread_is_not_uninterruptible() {
    const ROUNDS: u64 = 20;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    // The thread of RCU's grace periods, by either of its names.
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let thread = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .find(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ["rcu_preempt", "rcu_sched"].contains(&name.trim())
        });
    let Some(thread) = thread else {
        skipped("needs to see kernel threads");
        return;
    };
    let cgroup = Cgroup::new("idle");
    let _guest = Guest::of(&cgroup, thread);
    let before = probes.snapshot();
    for _ in 0..ROUNDS {
        // Waits for one grace period (kernel/sched/membarrier.c).
        // SAFETY: a system call on numbers.
        let result = unsafe { libc::syscall(libc::SYS_membarrier, 1, 0, 0) };
        assert_eq!(result, 0);
    }
    let after = probes.snapshot();
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    assert!(gained.switches("voluntary") >= ROUNDS);
    assert_eq!(gained.switches("uninterruptible"), 0);
}

/// A process of the root cgroup in one of ours; it goes back when dropped.
struct Guest(i32);

impl Guest {
    fn of(cgroup: &Cgroup, pid: i32) -> Self {
        cgroup.add(pid);
        Self(pid)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let home = cgroup2::root().unwrap().join("cgroup.procs");
        fs::write(home, self.0.to_string()).unwrap();
    }
}

/// A task that was preempted after it had said that it would sleep, but before
/// it did, is still on the run queue: the kernel calls that nonvoluntary. Only
/// kernels that preempt themselves (preempt=full, lazy) can get there.
#[test]
fn preempted_on_the_way_to_sleep_is_preempted() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cpu = *cpus().last().unwrap();
    let cgroup = Cgroup::new("drowsy");
    // Two rhythms that meet at every phase of each other.
    let mut others = Worker::start(|until| {
        while now() < until {
            sleep_for(37_000);
        }
        0
    });
    let mut drowsy = Worker::start_in(&cgroup, |until| {
        while now() < until {
            sleep_for(23_000);
        }
        0
    });
    pin(others.pid, cpu);
    pin(drowsy.pid, cpu);
    fifo(others.pid, 2);
    let (before, after, _) = window(
        &mut probes,
        &cgroup.unit,
        &mut [&mut drowsy],
        &mut [&mut others],
        || now() + 700 * MILLISECOND,
    );
    assert!(grew(&before, &after, SWITCHES, &[("unit", &cgroup.unit)]) > 1000);
}
