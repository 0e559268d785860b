//! Accounts: one value per label set and CPU, found or made by its key.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_map_update_elem,
    macros::map,
    maps::{Array, PerCpuArray, PerCpuHashMap},
};
use aya_log_ebpf::warn;
use kldtrace_abi::loss::Loss;

/// Losses by [`Loss`].
#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(Loss::ALL.len() as u32, 0);

/// Counts one loss, and tells of it where diagnostics are on (`[log] probes`);
/// else the verifier removes the telling. Out of line: it is rare.
#[inline(never)]
pub fn lose(what: Loss) {
    warn!(&(), "lost: {}", what.as_str());
    lose_quietly(what);
}

/// Counts one loss, where losses are what each packet of a flood has.
#[inline(always)]
pub fn lose_quietly(what: Loss) {
    if let Some(counter) = LOSSES.get_ptr_mut(what as u32) {
        // SAFETY: this CPU's own counter.
        unsafe { *counter += 1 };
    }
}

/// A map of accounts, all of one type.
pub trait Accounts {
    /// The labels.
    type Key: Copy + 'static;
    /// The numbers.
    type Account: 'static;
    /// The key whose account user space makes before attach: it takes what
    /// finds no room.
    const OTHER: Self::Key;
    /// What to count then.
    const FULL: Loss;
    /// The map.
    fn map() -> &'static PerCpuHashMap<Self::Key, Self::Account>;
    /// One account of zeros: too large for the stack, so it lies in a map.
    fn zero() -> &'static Array<Self::Account>;
}

/// This CPU's account for a key, made if it is new.
#[inline(always)]
pub fn account<A: Accounts>(key: &A::Key) -> Option<*mut A::Account> {
    match A::map().get_ptr_mut(key) {
        Some(account) => Some(account),
        None => {
            let made = make::<A>(key);
            (!made.is_null()).then_some(made)
        }
    }
}

/// Out of line: it runs once for each key.
#[inline(never)]
fn make<A: Accounts>(key: &A::Key) -> *mut A::Account {
    if let Some(zero) = A::zero().get_ptr(0) {
        // SAFETY: map, key and value have the types that the map was made
        // with. Another CPU may have been first: then this does nothing.
        unsafe {
            bpf_map_update_elem(
                core::ptr::from_ref(A::map()).cast_mut().cast(),
                core::ptr::from_ref(key).cast(),
                zero.cast(),
                BPF_NOEXIST.into(),
            )
        };
    }
    if let Some(account) = A::map().get_ptr_mut(key) {
        return account;
    }
    lose(A::FULL);
    match A::map().get_ptr_mut(A::OTHER) {
        Some(account) => account,
        None => core::ptr::null_mut(),
    }
}
