//! Cgroups: the id of an object's cgroup, and the news of their coming and
//! going, so that user space knows the name behind an id that is already gone.
//!
//! `cgroup_mkdir` and `cgroup_rmdir` of include/trace/events/cgroup.h:
//! `(struct cgroup *cgrp, const char *path)`.

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{btf_tracepoint, map},
    maps::{HashMap, Queue, RingBuf},
    programs::BtfTracePointContext,
};
use kldtrace_abi::{
    event::{CGROUP_MADE, CGROUP_REMOVED, CgroupEvent, PATH},
    loss::Loss,
};

use crate::{
    accounts::lose,
    kernel::{Object, Typed, offsets},
};

offsets! {
    OFFSET___cgroup___kn
    OFFSET___cgroup___root
    OFFSET___cgroup_root___hierarchy_id
    OFFSET___kernfs_node___id
}

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Slots of the scheduler accounts by cgroup id.
#[map]
static SCHED_SLOTS: HashMap<u64, u32> = HashMap::with_max_entries(1, 0);
/// Slots that are free. User space fills it, and gives back the slots of the
/// cgroups that are gone.
#[map]
static SCHED_FREE: Queue<u32> = Queue::with_max_entries(1, 0);

/// The slot of a cgroup; 0 where there was none left.
#[inline(always)]
pub fn slot(cgroup: u64) -> u32 {
    match SCHED_SLOTS.get_ptr(cgroup) {
        // SAFETY: a value of the map, which is not freed while this runs.
        Some(slot) => unsafe { *slot },
        None => {
            lose(Loss::SchedSeries);
            0
        }
    }
}

/// A cgroup's id, which is its inode number in the cgroup file system.
#[inline(always)]
pub fn id<const TYPED: bool>(cgroup: Object<TYPED>) -> u64 {
    cgroup
        .follow(&OFFSET___cgroup___kn)
        .get(&OFFSET___kernfs_node___id)
}

/// A cgroup was made.
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    let cgroup = Object(ctx.arg(0));
    // Before its first task: nothing of it goes to another's account.
    if in_default_hierarchy(cgroup)
        && let Ok(Some(slot)) = SCHED_FREE.pop()
        && SCHED_SLOTS.insert(id(cgroup), slot, 0).is_err()
    {
        let _ = SCHED_FREE.push(slot, 0);
    }
    tell(CGROUP_MADE, cgroup, ctx.arg(1));
    0
}

/// A cgroup was removed.
#[btf_tracepoint(function = "cgroup_rmdir")]
pub fn cgroup_rmdir(ctx: BtfTracePointContext) -> i32 {
    tell(CGROUP_REMOVED, Object(ctx.arg(0)), ctx.arg(1));
    0
}

/// Whether it is of cgroup v2; v1 controllers have hierarchies of their own.
#[inline(always)]
fn in_default_hierarchy(cgroup: Typed) -> bool {
    let root = cgroup.follow(&OFFSET___cgroup___root);
    root.get::<u32>(&OFFSET___cgroup_root___hierarchy_id) == 0
}

#[inline(always)]
fn tell(kind: u32, cgroup: Typed, path: *const u8) {
    if !in_default_hierarchy(cgroup) {
        return;
    }
    let Some(mut slot) = EVENTS.reserve::<CgroupEvent>(0) else {
        lose(Loss::Event);
        return;
    };
    let event = slot.as_mut_ptr();
    // SAFETY: the slot is reserved for this event and of its size.
    unsafe {
        (*event).kind = kind;
        (*event).id = id(cgroup);
        let buffer = &mut (*event).path;
        let length = match bpf_probe_read_kernel_str_bytes(path, buffer) {
            // The closing zero counts for the kernel, not for aya.
            Ok(text) => (text.len() + 1).min(PATH),
            Err(_) => 0,
        };
        (*event).length = length as u32;
    }
    slot.submit(0);
}
