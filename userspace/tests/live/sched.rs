//! The scheduler's signals against /proc/PID/schedstat, /proc/PID/status and
//! the clock of who was made to wait.

use std::{
    fs::{self, File},
    io::PipeReader,
    os::fd::AsRawFd as _,
};

use kldtrace::{kernel::cgroup2, view::quantile::Summary};
use kldtrace_exporters::model::Histogram;

use crate::{
    common::{Probes, Snapshot, assert_close, gained, grew, skipped, wait_for},
    load::{
        Account, Cgroup, MILLISECOND, Worker, cpus, fifo, hierarchy, now, pin, read_number, reap,
        sleep_for, sleep_until, spawn_into, spin_for, spin_until, write_number,
    },
};

const RUNQUEUE: &str = "kldtrace_sched_runqueue_latency_seconds";
const ONCPU: &str = "kldtrace_sched_oncpu_seconds";
const OFFCPU: &str = "kldtrace_sched_offcpu_seconds";
const SWITCHES: &str = "kldtrace_sched_context_switches";
const MIGRATIONS: &str = "kldtrace_sched_migrations";

const REASONS: [&str; 3] = ["voluntary", "preempted", "uninterruptible"];

const SIGNALS: &[&str] = &[
    "sched.runqueue_latency",
    "sched.oncpu_time",
    "sched.offcpu_time",
    "sched.context_switches",
    "sched.migrations",
];

/// What a unit gained in a window.
struct Gained<'a> {
    before: &'a Snapshot,
    after: &'a Snapshot,
    unit: &'a str,
}

impl Gained<'_> {
    fn histogram(&self, metric: &str, reason: &str) -> Histogram {
        let labels = [("unit", self.unit), ("reason", reason)];
        gained(self.before, self.after, metric, &labels)
    }

    fn oncpu(&self) -> Histogram {
        gained(self.before, self.after, ONCPU, &[("unit", self.unit)])
    }

    fn switches(&self, reason: &str) -> u64 {
        let labels = [("unit", self.unit), ("reason", reason)];
        grew(self.before, self.after, SWITCHES, &labels)
    }

    fn p50(&self, metric: &str, reason: &str) -> f64 {
        Summary::of(&self.histogram(metric, reason)).p50
    }

    /// How many arrivals of as many departures are missing. What departs is
    /// always whole, no arrival is counted twice, and no more than some are
    /// missing.
    #[track_caller]
    fn missing(&self, kernel: Account) -> u64 {
        let count = |metric: &str, reasons: &[&str]| -> u64 {
            let each = reasons.iter().map(|r| self.histogram(metric, r).count());
            each.sum()
        };
        let switches: u64 = REASONS.iter().map(|r| self.switches(r)).sum();
        assert_eq!(switches, kernel.slices, "context switches");
        assert_eq!(self.oncpu().count(), kernel.slices, "slices");
        let arrivals = count(RUNQUEUE, &["wakeup", "preempted"]);
        assert_eq!(count(OFFCPU, &REASONS), arrivals, "returns");
        let missing = kernel.slices - arrivals;
        assert!(missing <= 5 + kernel.slices / 50, "{missing} missing");
        missing
    }

    /// All that can be compared with the kernel's own account, exactly: the
    /// window begins and ends with every task of the unit asleep, so each
    /// arrival has its departure in it.
    #[track_caller]
    fn agrees_with(&self, kernel: Account, stolen: u64) {
        let count = |metric, reason| self.histogram(metric, reason).count();
        let [voluntary, preempted, uninterruptible] = REASONS.map(|reason| {
            let switches = self.switches(reason);
            assert_eq!(count(OFFCPU, reason), switches, "off CPU, {reason}");
            switches
        });
        assert_eq!(voluntary + uninterruptible, kernel.voluntary, "voluntary");
        assert_eq!(preempted, kernel.preempted, "preempted");
        // Who left by itself is queued by a wake-up, and who was preempted by
        // that.
        assert_eq!(count(RUNQUEUE, "wakeup"), kernel.voluntary, "wake-ups");
        assert_eq!(count(RUNQUEUE, "preempted"), kernel.preempted, "queued");
        let waited = self.histogram(RUNQUEUE, "wakeup").sum_ns
            + self.histogram(RUNQUEUE, "preempted").sum_ns;
        assert_eq!(waited, kernel.waited, "time on the run queue");
        let oncpu = self.oncpu();
        assert_eq!(oncpu.count(), kernel.slices, "slices");
        // The kernel takes what interrupts and the hypervisor have stolen out
        // of a task's run time, where it keeps account of that, and not out of
        // its run-queue clock (kernel/sched/core.c: update_rq_clock_task).
        assert!(
            (kernel.ran..=kernel.ran + stolen).contains(&oncpu.sum_ns),
            "{} ns on CPU, the kernel says {} and up to {stolen} stolen",
            oncpu.sum_ns,
            kernel.ran
        );
        println!(
            "{}: {kernel:?}; on CPU {} ns more, of {stolen} possible",
            self.unit,
            oncpu.sum_ns - kernel.ran
        );
    }
}

/// Nanoseconds that interrupts and the hypervisor took from all CPUs since
/// boot (proc(5): stat). In ticks of 10 ms: a difference may be too small by
/// a tick for each column and CPU.
fn stolen() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let columns = text.lines().next().unwrap().split_whitespace().skip(1);
    let numbers: Vec<u64> = columns.map(|column| column.parse().unwrap()).collect();
    // SAFETY: sysconf has no preconditions.
    let hertz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.cast_unsigned();
    (numbers[5] + numbers[6] + numbers[7] + 3) * 1_000_000_000 / hertz
}

/// Runs workers side by side, from rest to rest, and checks all exact numbers
/// of their unit. Gives the snapshots around it and the workers' answers.
///
/// The kernel of the build machine does not call `sched_switch` at every
/// switch: a few, away from threads of its host's agent, are not in ftrace
/// either, and what arrives then is not seen to arrive. That is no matter of
/// ours, so a window with such a switch is taken again, on the next CPU; ten
/// of them in a row are a failure.
#[track_caller]
fn window<'a>(
    probes: &mut Probes,
    unit: &str,
    workers: &mut [&'a mut Worker],
    others: &mut [&'a mut Worker],
    task: impl Fn() -> u64,
) -> (Snapshot, Snapshot, Vec<u64>) {
    let account = |workers: &[&mut Worker]| {
        let each = workers.iter().map(|worker| worker.account());
        each.fold(Account::default(), |sum, one| sum + one)
    };
    for _ in 0..10 {
        let stolen_before = stolen();
        let kernel_before = account(workers);
        let before = probes.snapshot();
        let task = task();
        for worker in others.iter_mut().chain(workers.iter_mut()) {
            worker.begin(task);
        }
        let answers = workers.iter_mut().map(|worker| worker.end()).collect();
        for worker in others.iter_mut() {
            worker.end();
        }
        let after = probes.snapshot();
        let kernel = account(workers) - kernel_before;
        let gained = Gained {
            before: &before,
            after: &after,
            unit,
        };
        let missing = gained.missing(kernel);
        if missing == 0 {
            let ticks = 3 * 10 * MILLISECOND * cpus().len() as u64;
            gained.agrees_with(kernel, stolen() - stolen_before + ticks);
            return (before, after, answers);
        }
        println!("{missing} of {} arrivals not traced: again", kernel.slices);
        for worker in others.iter_mut().chain(workers.iter_mut()) {
            worker.next_cpu();
        }
    }
    panic!("arrivals are missing, ten times in a row");
}

fn median(mut times: [u64; ROUNDS as usize]) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Cycles of the tests that keep a task off its CPU.
const ROUNDS: u64 = 25;
const CYCLE: u64 = 50 * MILLISECOND;

/// Begins to spin at `from` of each cycle and stops at `to`.
fn competitor(from: u64, to: u64) -> Worker {
    let worker = Worker::start(move |start| {
        for round in 0..ROUNDS {
            sleep_until(start + round * CYCLE + from);
            spin_until(start + round * CYCLE + to);
        }
        0
    });
    fifo(worker.pid, 2);
    worker
}

/// Both wake at the same time; the competitor runs first, for 20 ms.
#[test]
fn a_task_that_wakes_waits_for_a_busy_competitor() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cpu = *cpus().last().unwrap();
    for policy in [libc::SCHED_FIFO, libc::SCHED_OTHER] {
        let cgroup = Cgroup::new(&format!("wakes-{policy}"));
        let mut competitor = competitor(0, 20 * MILLISECOND);
        let mut victim = Worker::start_in(&cgroup, |start| {
            let mut late = [0; ROUNDS as usize];
            for (round, late) in (0..).zip(&mut late) {
                let wanted = start + round * CYCLE;
                sleep_until(wanted);
                *late = now() - wanted;
            }
            median(late)
        });
        pin(competitor.pid, cpu);
        pin(victim.pid, cpu);
        if policy == libc::SCHED_FIFO {
            fifo(victim.pid, 1);
        }
        let (before, after, answers) = window(
            &mut probes,
            &cgroup.unit,
            &mut [&mut victim],
            &mut [&mut competitor],
            || now() + 10 * MILLISECOND,
        );
        let gained = Gained {
            before: &before,
            after: &after,
            unit: &cgroup.unit,
        };
        let p50 = gained.p50(RUNQUEUE, "wakeup");
        let own = answers[0] as f64 / 1e9;
        println!("p50 {p50} s, its own clock {own} s");
        // From the timer's interrupt to its first instruction it does some
        // microseconds more than wait.
        assert_close(p50, own, 0.0002);
        // A task of SCHED_OTHER waits for all else on a busy machine, too.
        if policy == libc::SCHED_FIFO {
            assert_close(p50, 0.020, 0.0002);
        }
    }
}

/// The victim runs from 0 to 40 ms of each cycle, the competitor from 10 to 30.
#[test]
fn a_preempted_task_waits_for_a_busy_competitor() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cpu = *cpus().last().unwrap();
    let cgroup = Cgroup::new("preempted");
    let mut competitor = competitor(10 * MILLISECOND, 30 * MILLISECOND);
    let mut victim = Worker::start_in(&cgroup, |start| {
        for round in 0..ROUNDS {
            sleep_until(start + round * CYCLE);
            spin_until(start + round * CYCLE + 40 * MILLISECOND);
        }
        0
    });
    pin(competitor.pid, cpu);
    pin(victim.pid, cpu);
    // Before SCHED_OTHER, so that nothing but the competitor preempts it.
    fifo(victim.pid, 1);
    let (before, after, _) = window(
        &mut probes,
        &cgroup.unit,
        &mut [&mut victim],
        &mut [&mut competitor],
        || now() + 10 * MILLISECOND,
    );
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    assert!(gained.switches("preempted") >= ROUNDS);
    // Two switches and an interrupt lie between the two clocks.
    assert_close(gained.p50(RUNQUEUE, "preempted"), 0.020, 0.0002);
    assert_close(gained.p50(OFFCPU, "preempted"), 0.020, 0.0002);
    // 10 ms before the competitor and 10 ms after it.
    assert_close(Summary::of(&gained.oncpu()).p50, 0.010, 0.0002);
}

#[test]
fn two_spinners_on_one_cpu_preempt_each_other() {
    const CPU_TIME: u64 = 150 * MILLISECOND;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cpu = *cpus().last().unwrap();
    let cgroup = Cgroup::new("spinners");
    let mut spinners = [0, 1].map(|_| {
        let worker = Worker::start_in(&cgroup, |cpu_time| {
            spin_for(cpu_time);
            0
        });
        pin(worker.pid, cpu);
        worker
    });
    let [one, two] = &mut spinners;
    let (before, after, _) = window(&mut probes, &cgroup.unit, &mut [one, two], &mut [], || {
        CPU_TIME
    });
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    // A slice is some milliseconds long.
    assert!(gained.histogram(RUNQUEUE, "preempted").count() > 10);
    assert!(gained.oncpu().sum_ns >= 2 * CPU_TIME);
    // While one runs, the other waits.
    assert!(gained.histogram(RUNQUEUE, "preempted").sum_ns > CPU_TIME / 2);
}

/// Each round one of the two at least has to be woken.
#[test]
fn a_ping_pong_is_queued_by_wake_ups() {
    const ROUNDS: u64 = 20_000;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cpu = *cpus().last().unwrap();
    let cgroup = Cgroup::new("ping-pong");
    let (from_one, to_two) = std::io::pipe().unwrap();
    let (from_two, to_one) = std::io::pipe().unwrap();
    let receive = |from: &PipeReader| read_number(from.as_raw_fd()).unwrap();
    let mut one = Worker::start_in(&cgroup, |rounds| {
        for round in 0..rounds {
            write_number(to_two.as_raw_fd(), round);
            receive(&from_two);
        }
        0
    });
    let mut two = Worker::start_in(&cgroup, |rounds| {
        for _ in 0..rounds {
            write_number(to_one.as_raw_fd(), receive(&from_one));
        }
        0
    });
    pin(one.pid, cpu);
    pin(two.pid, cpu);
    let (before, after, _) = window(
        &mut probes,
        &cgroup.unit,
        &mut [&mut one, &mut two],
        &mut [],
        || ROUNDS,
    );
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    assert!(gained.histogram(RUNQUEUE, "wakeup").count() >= ROUNDS);
}

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
    // Forking is in its clock and not in the sleep, and the two do not start
    // at the same instant.
    assert_close(Summary::of(&off).p50, 0.025, 0.001);
    let times = ROUNDS as f64;
    assert!((times * 0.024..own + 0.001).contains(&off.sum_seconds()));
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

#[test]
fn each_forced_move_is_a_migration() {
    const MOVES: u64 = 500;
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let &[one, two, ..] = cpus().as_slice() else {
        skipped("needs two CPUs");
        return;
    };
    let cgroup = Cgroup::new("moves");
    let mut worker = Worker::start_in(&cgroup, move |moves| {
        for turn in 0..moves {
            pin(0, if turn % 2 == 0 { two } else { one });
        }
        0
    });
    pin(worker.pid, one);
    // To be moved is a matter of its next run.
    worker.run(0);
    // Where the kernel has it: CONFIG_SCHED_DEBUG before 6.15.
    let pid = worker.pid;
    let kernel = || {
        let text = fs::read_to_string(format!("/proc/{pid}/sched")).ok()?;
        let line = text.lines().find(|l| l.starts_with("se.nr_migrations"))?;
        line.rsplit(' ').next()?.parse::<u64>().ok()
    };
    let kernel_before = kernel();
    let before = probes.snapshot();
    worker.run(MOVES);
    let after = probes.snapshot();
    let moves = grew(&before, &after, MIGRATIONS, &[("unit", &cgroup.unit)]);
    assert_eq!(moves, MOVES);
    if let (Some(before), Some(after)) = (kernel_before, kernel()) {
        assert_eq!(moves, after - before);
        println!("{moves} moves, as in /proc/PID/sched");
    }
}

/// The kernel adds up what a task waits on each CPU that it is moved over
/// (kernel/sched/stats.h: sched_info_dequeue); it is one wait all the same.
#[test]
fn a_wait_across_a_migration_is_whole() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let &[one, two, ..] = cpus().as_slice() else {
        skipped("needs two CPUs");
        return;
    };
    let cgroup = Cgroup::new("moved");
    let mut victim = Worker::start_in(&cgroup, |start| {
        for round in 0..ROUNDS {
            sleep_until(start + round * CYCLE);
        }
        0
    });
    let pid = victim.pid;
    // Keeps it off one CPU for 20 ms, but after 10 ms it is moved.
    let mut competitor = competitor(0, 20 * MILLISECOND);
    let all = cpus();
    let mut mover = Worker::start(move |start| {
        // It is one CPU on from the others, wherever that is.
        let here = cpus()[0];
        let at = all.iter().position(|&cpu| cpu == here).unwrap();
        let there = all[(at + all.len() - 1) % all.len()];
        for round in 0..ROUNDS {
            sleep_until(start + round * CYCLE + 10 * MILLISECOND);
            pin(pid, here);
            sleep_until(start + round * CYCLE + 30 * MILLISECOND);
            pin(pid, there);
        }
        0
    });
    pin(competitor.pid, one);
    pin(victim.pid, one);
    pin(mover.pid, two);
    fifo(victim.pid, 1);
    fifo(mover.pid, 3);
    let (before, after, _) = window(
        &mut probes,
        &cgroup.unit,
        &mut [&mut victim],
        &mut [&mut competitor, &mut mover],
        || now() + 10 * MILLISECOND,
    );
    let gained = Gained {
        before: &before,
        after: &after,
        unit: &cgroup.unit,
    };
    // Being moved takes the mover some microseconds.
    assert_close(gained.p50(RUNQUEUE, "wakeup"), 0.010, 0.0002);
}

#[test]
fn a_process_counts_where_it_is() {
    let Some(mut probes) = Probes::attach(SIGNALS) else {
        return;
    };
    let cgroups = [Cgroup::new("first"), Cgroup::new("second")];
    let mut worker = Worker::start(|rounds| {
        for _ in 0..rounds {
            sleep_for(MILLISECOND / 2);
        }
        0
    });
    let mut total = Account::default();
    for (cgroup, rounds) in cgroups.iter().zip([70, 110]) {
        cgroup.add(worker.pid);
        let start = worker.account();
        window(
            &mut probes,
            &cgroup.unit,
            &mut [&mut worker],
            &mut [],
            || rounds,
        );
        total = total + (worker.account() - start);
    }
    let all = probes.snapshot();
    let [first, second] =
        [&cgroups[0], &cgroups[1]].map(|c| all.integer(SWITCHES, &[("unit", &c.unit)]));
    assert!(first >= 70 && second >= 110);
    assert_eq!(first + second, total.voluntary + total.preempted);
}

/// Nobody looks while the cgroup lives: only the event knows its name.
#[test]
fn a_cgroup_of_a_few_milliseconds_has_a_name_and_leaves_its_counts() {
    let mut signals = SIGNALS.to_vec();
    signals.extend(["self.map_entries", "self.cgroup_events"]);
    let Some(mut probes) = Probes::attach(&signals) else {
        return;
    };
    let mut expected = 0;
    let mut seen = 0;
    // The second life is that of a restarted unit: its sums go on.
    for life in 1..=2 {
        let cgroup = Cgroup::new("short");
        let unit = cgroup.unit.clone();
        let folder = File::open(&cgroup.path).unwrap();
        let child = spawn_into(&folder, 0, || (0..5).for_each(|_| sleep_for(MILLISECOND)));
        let account = reap(child);
        drop((folder, cgroup));
        expected += account.voluntary + account.preempted;
        for reading in 0..3 {
            let snapshot = probes.snapshot();
            let switches = snapshot.integer(SWITCHES, &[("unit", &unit)]);
            assert!(switches >= seen, "{switches} after {seen}");
            seen = switches;
            assert_eq!(switches, expected, "life {life}, reading {reading}");
            assert_eq!(snapshot.integer(SWITCHES, &[("unit", "unknown")]), 0);
        }
        let labels = [("unit", &*unit)];
        let off = probes.snapshot().histogram(OFFCPU, &labels);
        // Its sleeps are in it; the last departure has no arrival.
        assert!(off.sum_ns >= life * MILLISECOND, "{off:?}");
    }
    assert_eq!(seen, expected);
    // Only the living and `other` have entries in the end.
    wait_for("the map's entry to go", || {
        let entries = probes
            .snapshot()
            .integer("kldtrace_map_entries", &[("map", "sched")]);
        entries <= hierarchy().len() as u64 + 1
    });
}
