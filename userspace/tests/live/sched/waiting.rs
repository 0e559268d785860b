//! Waiting for a CPU, after a wake-up and after a preemption.

use std::{io::PipeReader, os::fd::AsRawFd as _};

use kldtrace::quantile::Summary;

use super::{CYCLE, Gained, OFFCPU, ROUNDS, RUNQUEUE, SIGNALS, competitor, median, window};
use crate::{
    common::{Probes, assert_close},
    load::{
        Cgroup, MILLISECOND, Worker, cpus, fifo, now, pin, read_number, sleep_until, spin_for,
        spin_until, write_number,
    },
};

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
