//! Moves: to another CPU, to another cgroup.

use std::fs::{self, File};

use kldtrace::quantile::Summary;

use super::{
    CYCLE, Gained, MIGRATIONS, OFFCPU, ROUNDS, RUNQUEUE, SIGNALS, SWITCHES, competitor, window,
};
use crate::{
    common::{Probes, assert_close, gained, grew, skipped, wait_for},
    load::{
        Account, Cgroup, MILLISECOND, Worker, cpus, fifo, hierarchy, now, pin, reap, sleep_for,
        sleep_until, spawn_into, spin_until,
    },
};

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

/// Of who goes to sleep nothing is noted where run-queue latency is the only
/// signal; it says the same all the same. In each cycle the victim wakes up, waits
/// on two CPUs, and is preempted once.
#[test]
fn run_queue_latency_alone_is_the_kernels_own() {
    let Some(mut probes) = Probes::attach(&["sched.runqueue_latency"]) else {
        return;
    };
    let &[one, two, ..] = cpus().as_slice() else {
        skipped("needs two CPUs");
        return;
    };
    let cgroup = Cgroup::new("alone");
    let mut victim = Worker::start_in(&cgroup, |start| {
        for round in 0..ROUNDS {
            sleep_until(start + round * CYCLE);
            spin_until(start + round * CYCLE + 45 * MILLISECOND);
        }
        0
    });
    let pid = victim.pid;
    let mut competitors = [(0, 20), (33, 38)].map(|(from, to)| {
        let competitor = competitor(from * MILLISECOND, to * MILLISECOND);
        pin(competitor.pid, one);
        competitor
    });
    let mut mover = Worker::start(move |start| {
        for round in 0..ROUNDS {
            sleep_until(start + round * CYCLE + 10 * MILLISECOND);
            pin(pid, two);
            sleep_until(start + round * CYCLE + 30 * MILLISECOND);
            pin(pid, one);
        }
        0
    });
    pin(mover.pid, two);
    fifo(mover.pid, 3);
    pin(victim.pid, one);
    fifo(victim.pid, 1);
    for _ in 0..10 {
        let kernel = victim.account();
        let before = probes.snapshot();
        let start = now() + 10 * MILLISECOND;
        let [first, second] = &mut competitors;
        let mut workers = [first, second, &mut mover, &mut victim];
        for worker in &mut workers {
            worker.begin(start);
        }
        for worker in &mut workers {
            worker.end();
        }
        let after = probes.snapshot();
        let kernel = victim.account() - kernel;
        let [woken, preempted] = ["wakeup", "preempted"].map(|reason| {
            let labels = [("unit", cgroup.unit.as_str()), ("reason", reason)];
            gained(&before, &after, RUNQUEUE, &labels)
        });
        println!("{kernel:?}, {} and {}", woken.count(), preempted.count());
        assert!(woken.count() <= kernel.voluntary && preempted.count() <= kernel.preempted);
        let arrivals = woken.count() + preempted.count();
        if arrivals < kernel.voluntary + kernel.preempted {
            // As in `window`: our program was not called.
            assert!(arrivals + 5 >= kernel.voluntary + kernel.preempted);
            continue;
        }
        assert!(kernel.voluntary >= ROUNDS && kernel.preempted >= ROUNDS);
        if kernel.slices == arrivals {
            assert_eq!(woken.sum_ns + preempted.sum_ns, kernel.waited);
        } else {
            assert!(woken.sum_ns + preempted.sum_ns > kernel.waited);
        }
        assert_close(Summary::of(&woken).p50, 0.010, 0.0002);
        // The mover has to preempt it to move it back, and is quicker.
        assert_close(Summary::of(&preempted).p90, 0.005, 0.0002);
        return;
    }
    panic!("arrivals are missing, ten times in a row");
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
