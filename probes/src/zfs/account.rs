//! The accounts of operations, and where a thread finds the one that it had last.

use kldtrace_abi::{
    loss::Loss,
    zfs::{FIRST_GENERATION, Found, OpKey, Operations, Thread},
};

use crate::slots::{self, accounts_at_slots};

accounts_at_slots! {
    OpAccounts: OpKey => Operations, Loss::ZfsSeries,
    ZFS_OPS ZFS_OPS_SLOTS ZFS_OPS_FREE ZFS_OPS_OWNERS ZFS_OPS_HINTS
}

/// Only user space writes it.
static mut ZFS_OPS_GENERATION: u32 = FIRST_GENERATION;

#[inline(always)]
fn generation() -> u32 {
    // SAFETY: a number in one piece; volatile, as it is written from outside.
    unsafe { (&raw const ZFS_OPS_GENERATION).read_volatile() }
}

#[inline(always)]
fn last(thread: *mut Thread, op: u32) -> *mut Found {
    // SAFETY: in bounds.
    unsafe { (&raw mut (*thread).last).cast::<Found>().add(op as usize) }
}

/// The slot of a key, from what the thread remembers of its last operation of this
/// kind: nearer than this CPU's hints. `None`: it has to be looked for.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(always)]
pub unsafe fn slot_again(thread: *mut Thread, op: u32, key: OpKey) -> Option<u32> {
    // SAFETY: by contract.
    unsafe {
        let last = last(thread, op);
        let good = (*last).generation == generation() && (*last).key == key;
        good.then(|| (*last).slot)
    }
}

/// The slot of a key, which the thread then remembers.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(always)]
pub unsafe fn slot(thread: *mut Thread, op: u32, key: OpKey) -> u32 {
    // SAFETY: by contract.
    unsafe {
        slot_again(thread, op, key).unwrap_or_else(|| {
            // Before the look, as slots may change meanwhile.
            let generation = generation();
            let slot = slots::slot::<OpAccounts>(&key);
            // None is not remembered: there may be one next time.
            if slot != 0 {
                *last(thread, op) = Found {
                    key,
                    slot,
                    generation,
                };
            }
            slot
        })
    }
}

/// This CPU's account at a slot.
#[inline(always)]
pub fn account_at(slot: u32) -> Option<*mut Operations> {
    slots::account_at::<OpAccounts>(slot)
}
