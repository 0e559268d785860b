//! The scheduler's signals against /proc/PID/schedstat, /proc/PID/status and
//! the clock of who was made to wait.

mod away;
mod moving;
mod tasks;
mod waiting;

use std::fs;

use kldtrace::quantile::Summary;
use kldtrace_exporters::model::Histogram;

use crate::{
    common::{Probes, Snapshot, gained, grew},
    load::{Account, MILLISECOND, Worker, cpus, fifo, sleep_until, spin_until},
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
        let departures = kernel.voluntary + kernel.preempted;
        assert_eq!(switches, departures, "context switches");
        assert_eq!(self.oncpu().count(), departures, "slices");
        // Who is preempted on its way to sleep comes back without the kernel
        // counting a slice or a wait (probes/src/node/sched.rs).
        assert!(kernel.slices <= departures, "{kernel:?}");
        let arrivals = count(RUNQUEUE, &["wakeup", "preempted"]);
        assert_eq!(count(OFFCPU, &REASONS), arrivals, "returns");
        let missing = departures - arrivals;
        assert!(missing <= 5 + departures / 50, "{missing} missing");
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
        if kernel.slices == kernel.voluntary + kernel.preempted {
            assert_eq!(waited, kernel.waited, "time on the run queue");
        } else {
            assert!(waited > kernel.waited, "{waited} ns on the run queue");
        }
        let oncpu = self.oncpu();
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
/// On the build machine a few arrivals in some thousands are missing: our
/// program was not called at those switches, and the kernel counts no miss.
/// Why is not known; where it was seen, the task that left was one that ftrace
/// never sees arrive. So a window with fewer arrivals than departures is taken
/// again, on the next CPU; ten of them in a row are a failure.
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
