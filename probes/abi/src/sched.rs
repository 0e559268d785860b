//! What the scheduler probes keep for each cgroup.

use crate::{histogram::Histogram, places::place};

/// Why a task left the CPU, as the kernel's `prev_state` tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum OffCpu {
    /// It slept of its own will (`TASK_INTERRUPTIBLE` and the like).
    Voluntary = 0,
    /// It was still runnable.
    Preempted = 1,
    /// It waits in `TASK_UNINTERRUPTIBLE`: usually for a device or a lock.
    Uninterruptible = 2,
}

impl OffCpu {
    /// All reasons, in the order of the arrays that they index.
    pub const ALL: [Self; 3] = [Self::Voluntary, Self::Preempted, Self::Uninterruptible];

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Voluntary => "voluntary",
            Self::Preempted => "preempted",
            Self::Uninterruptible => "uninterruptible",
        }
    }
}

/// Scheduler account of one cgroup on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sched {
    /// Run-queue wait: after a wake-up, and after a preemption.
    pub runqueue: [Histogram; 2],
    /// Time on CPU of each slice.
    pub oncpu: Histogram,
    /// Time off CPU, by [`OffCpu`].
    pub offcpu: [Histogram; 3],
    /// Context switches away from a task, by [`OffCpu`].
    pub switches: [u64; 3],
    /// Moves of a task to another CPU.
    pub migrations: u64,
}
/// Index into [`Sched::runqueue`]: queued by a wake-up.
pub const QUEUED_BY_WAKEUP: usize = 0;
/// Index into [`Sched::runqueue`]: queued because it was preempted.
pub const QUEUED_BY_PREEMPTION: usize = 1;

/// In place of why a task left the CPU: it is there, or nobody asked.
pub const ON_CPU: u16 = OffCpu::ALL.len() as u16;

/// What is remembered of a task while it lives.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Task {
    /// Address of the kernel's `struct task_struct`; 0: this place is free.
    pub address: u64,
    /// When it left the CPU, by the run queue's clock in nanoseconds. While it is
    /// [`ON_CPU`], when it came there, if the kernel has not noted that; else 0.
    pub since: u64,
    /// The kernel's sum of its waits before the one that is next, in nanoseconds.
    pub run_delay: u64,
    /// `self.serial_nr` of the kernel's `struct cgroup` that `slot` belongs to, and
    /// one more; 0: none.
    pub cgroup: u64,
    /// Slot of the cgroup's account.
    pub slot: u32,
    /// [`OffCpu`] as a number: why it left the CPU; or [`ON_CPU`].
    pub reason: u16,
    /// Whether it lies in another set than its own: 1, else 0.
    pub elsewhere: u16,
}
place!(Task);
