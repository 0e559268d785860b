//! Tasks of ZFS's threads: from being handed over to being begun.
//!
//! `trace_zfs_taskq_ent__birth(taskq_ent_t *t)` and `…__start` are empty
//! functions of spl that are called at these moments
//! (module/os/linux/spl/spl-taskq.c: `DTRACE_PROBE1`). What begins may be a
//! copy of what was handed over, so a task is known by its queue and its
//! number there. ZFS's own stamp, `tqent_birth`, is in jiffies: several
//! milliseconds, where a task waits for microseconds.
//!
//! A request to a vdev is a task twice or more, so both run at each request
//! several times. That is much for something that is seldom asked: the signal
//! is off unless it is named.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{kprobe, map},
    maps::{Array, HashMap, PerCpuHashMap},
    programs::ProbeContext,
};
use kldtrace_abi::{
    histogram::Histogram,
    loss::Loss,
    zfs_taskq::{Task, TaskqKey},
};

use super::vdev::Plain;
use crate::{
    accounts::{Accounts, account, lose},
    kernel::{now, offsets},
    record,
};

offsets! {
    OFFSET___taskq_ent___tqent_id
    OFFSET___taskq_ent___tqent_taskq
    OFFSET___taskq___tq_name
}

/// Histograms by name of the queue.
#[map]
static ZFS_TASKQS: PerCpuHashMap<TaskqKey, Histogram> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_TASKQS_ZERO: Array<Histogram> = Array::with_max_entries(1, 0);
/// When each task that waits was handed over.
#[map]
static ZFS_TASKS: HashMap<Task, u64> = HashMap::with_max_entries(1, 0);

struct TaskqAccounts;
impl Accounts for TaskqAccounts {
    type Key = TaskqKey;
    type Account = Histogram;
    const OTHER: TaskqKey = TaskqKey::OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<TaskqKey, Histogram> {
        &ZFS_TASKQS
    }
    #[inline(always)]
    fn zero() -> &'static Array<Histogram> {
        &ZFS_TASKQS_ZERO
    }
}

/// The task, and the name of its queue.
#[inline(always)]
fn task(ctx: &ProbeContext) -> (Task, TaskqKey) {
    let entry = Plain::at(ctx.arg(0).unwrap_or_default());
    let queue = entry.follow(&OFFSET___taskq_ent___tqent_taskq);
    let mut key = TaskqKey::OTHER;
    let name = queue.follow(&OFFSET___taskq___tq_name);
    // SAFETY: the helper checks the address.
    let _ = unsafe { bpf_probe_read_kernel_str_bytes(name.0, &mut key.name) };
    let task = Task {
        queue: queue.0 as u64,
        id: entry.get(&OFFSET___taskq_ent___tqent_id),
    };
    (task, key)
}

/// A task is handed over. Those of ZFS have names like `z_wr_iss` and `zvol`;
/// others are of no request, and may be meant to wait.
#[kprobe]
pub fn zfs_task_birth(ctx: ProbeContext) -> u32 {
    let (task, key) = task(&ctx);
    if key.name[0] == b'z' && ZFS_TASKS.insert(task, now(), 0).is_err() {
        lose(Loss::ZfsTask);
    }
    0
}

/// A task is begun.
#[kprobe]
pub fn zfs_task_start(ctx: ProbeContext) -> u32 {
    let (task, key) = task(&ctx);
    // SAFETY: copied at once; a task is begun once.
    let Some(birth) = (unsafe { ZFS_TASKS.get(task) }).copied() else {
        return 0;
    };
    let _ = ZFS_TASKS.remove(task);
    if let Some(histogram) = account::<TaskqAccounts>(&key) {
        // SAFETY: this CPU's own histogram.
        unsafe { record(histogram, now().saturating_sub(birth)) };
    }
    0
}
