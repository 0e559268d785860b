//! The scheduler: run-queue latency, time on and off CPU, switches, migrations.
//!
//! `sched_switch` of include/trace/events/sched.h (since 5.18):
//! `(bool preempt, struct task_struct *prev, struct task_struct *next,
//! unsigned int prev_state)`. It is called in `__schedule` after the clock of
//! the run queue was read and before `sched_info_switch`, so that
//! - `prev->sched_info.last_arrival` is when its slice began,
//! - `next->sched_info.last_queued` is when it was queued on this CPU, and
//!   `run_delay` has what it waited on others before it was moved here,
//! - the run queue's `clock` is now, on the same clock.
//!
//! A task that is preempted after it has set its state to go to sleep is not
//! taken for queued (kernel/sched/stats.h: `sched_info_depart` asks for
//! `task_is_running`), and its next arrival is not noted (`sched_info_arrive`
//! returns where `last_queued` is 0): it is neither in `run_delay` nor in
//! `pcount`, and `last_arrival` is that of the slice before. Kernels that
//! preempt themselves do this some times in ten thousand switches. Then its
//! departure, which is known here, is when it was queued.
//!
//! The kernel keeps no departure time, so that one is remembered of each task, with
//! the slot of the task's cgroup, in a table: task storage took a third of this
//! program's time (docs/src/journal/2026-11-30-sched-cost.md). Who gives the CPU away
//! for the last time, dead, leaves the table.
//!
//! `sched_migrate_task`: `(struct task_struct *p, int dest_cpu)`.

use aya_ebpf::{
    macros::{btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use kldtrace_abi::{
    histogram::Histogram,
    loss::Loss,
    sched::{ON_CPU, OffCpu, QUEUED_BY_PREEMPTION, QUEUED_BY_WAKEUP, Sched, Task},
};

use kldtrace_probes::places::{self, places};

use crate::{
    cgroup,
    kernel::{Object, Typed, offsets, on, settings},
};

offsets! {
    OFFSET___task_struct___pid
    OFFSET___task_struct___cgroups
    OFFSET___task_struct_____state
    OFFSET___task_struct___se___cfs_rq
    OFFSET___task_struct___sched_info___last_queued
    OFFSET___task_struct___sched_info___last_arrival
    OFFSET___task_struct___sched_info___run_delay
    OFFSET___css_set___dfl_cgrp
    OFFSET___cgroup___self___serial_nr
    OFFSET___cfs_rq___rq
    OFFSET___rq___clock
}

settings! {
    /// Run-queue latency.
    SWITCH_SCHED_RUNQUEUE
    /// Time on CPU.
    SWITCH_SCHED_ONCPU
    /// Time off CPU.
    SWITCH_SCHED_OFFCPU
    /// Context switches.
    SWITCH_SCHED_SWITCHES
    /// Whether the kernel passes `prev_state` as the fourth argument.
    SCHED_HAS_PREV_STATE
}

/// Accounts by slot. Slot 0 takes what has no slot of its own.
#[map]
static SCHED: PerCpuArray<Sched> = PerCpuArray::with_max_entries(1, 0);

places! { Tasks: Task, Loss::SchedDeparture, TASKS TASKS_NOW TASK_SETS }

/// `TASK_DEAD` of include/linux/sched.h: this task never comes back.
const DEAD: u32 = 0x80;

/// What is remembered of a task; from now on, if nothing was.
#[inline(always)]
fn memory_of(task: Typed) -> Option<*mut Task> {
    let address = task.identity();
    places::remembered::<Tasks>(address).or_else(|| {
        let run_delay = task.get(&OFFSET___task_struct___sched_info___run_delay);
        let place = remember(address, run_delay);
        (!place.is_null()).then_some(place)
    })
}

/// Out of line: it runs once for each task.
#[inline(never)]
fn remember(address: u64, run_delay: u64) -> *mut Task {
    let Some(place) = places::remember::<Tasks>(address) else {
        return core::ptr::null_mut();
    };
    // SAFETY: the place is this task's, which no other CPU has.
    unsafe {
        (*place).since = 0;
        (*place).run_delay = run_delay;
        (*place).cgroup = 0;
        (*place).reason = ON_CPU;
    }
    place
}

/// Whether it is noted of each task when and why it left. With run-queue latency
/// alone it is of those that are preempted.
#[inline(always)]
fn notes_each_departure() -> bool {
    on(&SWITCH_SCHED_OFFCPU) || on(&SWITCH_SCHED_ONCPU) || on(&SWITCH_SCHED_SWITCHES)
}

#[inline(always)]
fn cgroup_of(task: Typed) -> Typed {
    let set = task.follow(&OFFSET___task_struct___cgroups);
    set.follow(&OFFSET___css_set___dfl_cgrp)
}

/// The slot of a task's cgroup, from the task's own memory while it stays in
/// the same cgroup: a hash look-up at each switch would cost 10 ns. Whether it
/// does tells a number that no other cgroup ever has (`css_serial_nr_next` of
/// kernel/cgroup/cgroup.c), one load nearer than the id.
///
/// # Safety
/// `memory` is the task's, and nobody else touches it meanwhile.
#[inline(always)]
unsafe fn slot_of(cgroup: Typed, memory: *mut Task) -> u32 {
    // The root's is 0.
    let number = cgroup.get::<u64>(&OFFSET___cgroup___self___serial_nr) + 1;
    // SAFETY: by contract.
    unsafe {
        if (*memory).cgroup == number {
            return (*memory).slot;
        }
        let slot = cgroup::slot(cgroup::id(cgroup));
        // None is not remembered: there may be one next time.
        if slot != 0 {
            (*memory).slot = slot;
            (*memory).cgroup = number;
        }
        slot
    }
}

/// A task gives the CPU to another.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let prev: Typed = Object(ctx.arg(1));
    let next: Typed = Object(ctx.arg(2));
    // A preempted task is still runnable, also when it had set its state to
    // go to sleep (`__trace_sched_switch_state`, and the kernel's own count).
    // Before 5.18 the state is still where the task keeps it.
    let prev_state: u32 = if ctx.arg::<u64>(0) & 1 != 0 {
        0
    } else if on(&SCHED_HAS_PREV_STATE) {
        ctx.arg(3)
    } else {
        prev.get(&OFFSET___task_struct_____state)
    };
    let queue = next
        .follow(&OFFSET___task_struct___se___cfs_rq)
        .follow(&OFFSET___cfs_rq___rq);
    let now: u64 = queue.get(&OFFSET___rq___clock);

    leave(prev, prev_state, now);
    arrive(next, now);
    0
}

/// The idle task is nobody.
#[inline(always)]
fn is_idle(task: Typed) -> bool {
    task.get::<u32>(&OFFSET___task_struct___pid) == 0
}

#[inline(always)]
fn leave(task: Typed, state: u32, now: u64) {
    // TASK_RUNNING is 0, TASK_UNINTERRUPTIBLE 2. With TASK_NOLOAD, 0x400, it
    // is TASK_IDLE: a kernel thread without work (include/linux/sched.h).
    let reason = if state == 0 {
        OffCpu::Preempted
    } else if state & 0x402 == 2 {
        OffCpu::Uninterruptible
    } else {
        OffCpu::Voluntary
    };
    let dead = state & DEAD != 0;
    if !(notes_each_departure() || reason == OffCpu::Preempted || dead) || is_idle(task) {
        return;
    }
    let Some(memory) = memory_of(task) else {
        return;
    };
    // SAFETY: only the CPU that the task leaves or enters touches its memory;
    // the account is this CPU's own.
    unsafe {
        let arrived = if (*memory).reason == ON_CPU {
            (*memory).since
        } else {
            0
        };
        (*memory).since = now;
        (*memory).reason = reason as u16;
        if on(&SWITCH_SCHED_RUNQUEUE) {
            (*memory).run_delay = task.get(&OFFSET___task_struct___sched_info___run_delay);
        }
        if (on(&SWITCH_SCHED_ONCPU) || on(&SWITCH_SCHED_SWITCHES))
            && let Some(account) = SCHED.get_ptr_mut(slot_of(cgroup_of(task), memory))
        {
            if on(&SWITCH_SCHED_SWITCHES) {
                let switches = (&raw mut (*account).switches).cast::<u64>();
                *switches.add(reason as usize) += 1;
            }
            if on(&SWITCH_SCHED_ONCPU) {
                let since = if arrived == 0 {
                    task.get(&OFFSET___task_struct___sched_info___last_arrival)
                } else {
                    arrived
                };
                Histogram::record(&raw mut (*account).oncpu, now.wrapping_sub(since));
            }
        }
        if dead {
            places::forget::<Tasks>(task.identity(), memory);
        }
    }
}

#[inline(always)]
fn arrive(task: Typed, now: u64) {
    if !(on(&SWITCH_SCHED_RUNQUEUE) || on(&SWITCH_SCHED_OFFCPU) || on(&SWITCH_SCHED_ONCPU))
        || is_idle(task)
    {
        return;
    }
    let last_queued: u64 = task.get(&OFFSET___task_struct___sched_info___last_queued);
    let Some(memory) = memory_of(task) else {
        return;
    };
    // SAFETY: as in `leave`.
    unsafe {
        // A new task, and one that has not left since attach, is `ON_CPU`: it was
        // woken up, and how long it was away nobody knows.
        let (left, reason) = ((*memory).since, (*memory).reason);
        (*memory).since = if last_queued == 0 { now } else { 0 };
        (*memory).reason = ON_CPU;
        if !(on(&SWITCH_SCHED_RUNQUEUE) || on(&SWITCH_SCHED_OFFCPU)) {
            return;
        }
        let Some(account) = SCHED.get_ptr_mut(slot_of(cgroup_of(task), memory)) else {
            return;
        };
        if on(&SWITCH_SCHED_OFFCPU) {
            // For the verifier of 6.1 the bound has to hold of a number that was
            // not put aside before.
            let index = core::hint::black_box(usize::from(reason));
            if index < OffCpu::ALL.len() {
                let offcpu = (&raw mut (*account).offcpu).cast::<Histogram>();
                // Clocks of two CPUs differ by less than a tick: a task that moved
                // may seem to arrive before it left.
                Histogram::record(offcpu.add(index), now.saturating_sub(left));
            }
        }
        if on(&SWITCH_SCHED_RUNQUEUE) {
            let here = if last_queued == 0 {
                0
            } else {
                now.saturating_sub(last_queued)
            };
            // Of this wait the kernel has summed up what was on other CPUs, and
            // is about to add the rest.
            let delay: u64 = task.get(&OFFSET___task_struct___sched_info___run_delay);
            let elsewhere = delay.saturating_sub((*memory).run_delay);
            if !notes_each_departure() {
                (*memory).run_delay = delay + here;
            }
            let preempted = reason == OffCpu::Preempted as u16;
            let waited = if last_queued != 0 {
                here + elsewhere
            } else if preempted {
                now.saturating_sub(left) + elsewhere
            } else {
                return;
            };
            let queued_by = if preempted {
                QUEUED_BY_PREEMPTION
            } else {
                QUEUED_BY_WAKEUP
            };
            let runqueue = (&raw mut (*account).runqueue).cast::<Histogram>();
            Histogram::record(runqueue.add(queued_by), waited);
        }
    }
}

/// A task moves to another CPU.
#[btf_tracepoint(function = "sched_migrate_task")]
pub fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    let task: Typed = Object(ctx.arg(0));
    if let Some(account) = SCHED.get_ptr_mut(cgroup::slot(cgroup::id(cgroup_of(task)))) {
        // SAFETY: this CPU's own account.
        unsafe { (*account).migrations += 1 };
    }
    0
}
