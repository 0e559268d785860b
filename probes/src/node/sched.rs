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
//! The kernel keeps no departure time, so that one lies in task storage, with
//! the slot of the task's cgroup: it belongs to the task and goes with it.
//!
//! `sched_migrate_task`: `(struct task_struct *p, int dest_cpu)`.

use aya_ebpf::{
    bindings::BPF_LOCAL_STORAGE_GET_F_CREATE,
    macros::{btf_map, btf_tracepoint, map},
    maps::PerCpuArray,
    programs::BtfTracePointContext,
};
use kldtrace_abi::{
    histogram::Histogram,
    loss::Loss,
    sched::{Departure, OffCpu, QUEUED_BY_PREEMPTION, QUEUED_BY_WAKEUP, Sched},
};

use kldtrace_probes::storage::TaskStorage;

use crate::{
    accounts::lose,
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

/// When and why a task left the CPU, and the slot of its cgroup.
#[btf_map]
static DEPARTURES: TaskStorage<Departure> = TaskStorage::new();

#[inline(always)]
fn cgroup_of(task: Typed) -> u64 {
    let set = task.follow(&OFFSET___task_struct___cgroups);
    cgroup::id(set.follow(&OFFSET___css_set___dfl_cgrp))
}

/// The slot of a task's cgroup, from the task's own memory while it stays in
/// the same cgroup: a hash look-up at each switch would cost 10 ns.
///
/// # Safety
/// `memory` is the task's, and nobody else touches it meanwhile.
#[inline(always)]
unsafe fn slot_of(cgroup: u64, memory: *mut Departure) -> u32 {
    // SAFETY: by contract.
    unsafe {
        if (*memory).cgroup == cgroup {
            return (*memory).slot;
        }
        let slot = cgroup::slot(cgroup);
        // None is not remembered: there may be one next time.
        if slot != 0 {
            (*memory).slot = slot;
            (*memory).cgroup = cgroup;
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

    // The idle task is nobody.
    if prev.get::<u32>(&OFFSET___task_struct___pid) != 0 {
        leave(prev, prev_state, now);
    }
    if next.get::<u32>(&OFFSET___task_struct___pid) != 0 {
        arrive(next, now);
    }
    0
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
    let Some(departure) = DEPARTURES.get(task, BPF_LOCAL_STORAGE_GET_F_CREATE) else {
        lose(Loss::SchedDeparture);
        return;
    };
    // SAFETY: only the CPU that the task leaves or enters touches its memory;
    // the account is this CPU's own.
    unsafe {
        (*departure).at = now;
        (*departure).reason = reason as u64;
        if on(&SWITCH_SCHED_RUNQUEUE) {
            (*departure).run_delay = task.get(&OFFSET___task_struct___sched_info___run_delay);
        }
        if !(on(&SWITCH_SCHED_ONCPU) || on(&SWITCH_SCHED_SWITCHES)) {
            return;
        }
        let Some(account) = SCHED.get_ptr_mut(slot_of(cgroup_of(task), departure)) else {
            return;
        };
        if on(&SWITCH_SCHED_SWITCHES) {
            let switches = (&raw mut (*account).switches).cast::<u64>();
            *switches.add(reason as usize) += 1;
        }
        if on(&SWITCH_SCHED_ONCPU) {
            let mut since = (*departure).arrived;
            if since == 0 {
                since = task.get(&OFFSET___task_struct___sched_info___last_arrival);
            }
            (*departure).arrived = 0;
            Histogram::record(&raw mut (*account).oncpu, now.wrapping_sub(since));
        }
    }
}

#[inline(always)]
fn arrive(task: Typed, now: u64) {
    if !(on(&SWITCH_SCHED_RUNQUEUE) || on(&SWITCH_SCHED_OFFCPU) || on(&SWITCH_SCHED_ONCPU)) {
        return;
    }
    let last_queued: u64 = task.get(&OFFSET___task_struct___sched_info___last_queued);
    // A new task, or one that has not left since attach, has no departure:
    // it was woken up, and how long it was away nobody knows.
    let Some(departure) = DEPARTURES.get(task, BPF_LOCAL_STORAGE_GET_F_CREATE) else {
        lose(Loss::SchedDeparture);
        return;
    };
    // SAFETY: as in `leave`.
    unsafe {
        (*departure).arrived = if last_queued == 0 { now } else { 0 };
        if !(on(&SWITCH_SCHED_RUNQUEUE) || on(&SWITCH_SCHED_OFFCPU)) {
            return;
        }
        let Some(account) = SCHED.get_ptr_mut(slot_of(cgroup_of(task), departure)) else {
            return;
        };
        let (at, reason) = ((*departure).at, (*departure).reason);
        if on(&SWITCH_SCHED_OFFCPU) && at != 0 && reason < OffCpu::ALL.len() as u64 {
            let offcpu = (&raw mut (*account).offcpu).cast::<Histogram>();
            // Clocks of two CPUs differ by less than a tick: a task that moved
            // may seem to arrive before it left.
            Histogram::record(offcpu.add(reason as usize), now.saturating_sub(at));
        }
        if on(&SWITCH_SCHED_RUNQUEUE) {
            let queued_by = if at != 0 && reason == OffCpu::Preempted as u64 {
                QUEUED_BY_PREEMPTION
            } else {
                QUEUED_BY_WAKEUP
            };
            let since = if last_queued == 0 && queued_by == QUEUED_BY_PREEMPTION {
                at
            } else {
                last_queued
            };
            if since != 0 {
                let mut waited = now.saturating_sub(since);
                if at != 0 {
                    let delay: u64 = task.get(&OFFSET___task_struct___sched_info___run_delay);
                    waited += delay.wrapping_sub((*departure).run_delay);
                }
                let runqueue = (&raw mut (*account).runqueue).cast::<Histogram>();
                Histogram::record(runqueue.add(queued_by), waited);
            }
        }
    }
}

/// A task moves to another CPU.
#[btf_tracepoint(function = "sched_migrate_task")]
pub fn sched_migrate_task(ctx: BtfTracePointContext) -> i32 {
    let task: Typed = Object(ctx.arg(0));
    if let Some(account) = SCHED.get_ptr_mut(cgroup::slot(cgroup_of(task))) {
        // SAFETY: this CPU's own account.
        unsafe { (*account).migrations += 1 };
    }
    0
}
