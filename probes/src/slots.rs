//! Accounts in an array, each at the slot that its key has: for what is counted
//! so often that finding its account in a hash costs more than counting.
//!
//! The hash of keys has the last word. Before it is asked, what was found for
//! such a key last time on this CPU is tried: it holds if the slot still belongs
//! to the key. User space gives slots back, and writes first that nobody owns
//! them, so that a hint that is out of date leads nowhere
//! (userspace/src/signals/accounts.rs).

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    maps::{Array, HashMap, PerCpuArray, Queue},
};
use kldtrace_abi::loss::Loss;

use crate::accounts::lose;

/// Hints of a CPU: slots that were found, by what [`hint`] makes of their keys.
/// One value of a map, whose address is there before it is known which is wanted.
pub type Hints = [u32; 1 << HINT_BITS];
const HINT_BITS: u32 = 10;

/// Accounts of one type and where they lie.
pub trait Slots {
    /// The labels, in words of 64 bits.
    type Key: Copy + 'static;
    /// The numbers.
    type Account: 'static;
    /// What to count where no slot is free: slot 0 takes it then.
    const FULL: Loss;
    /// The accounts by slot.
    fn accounts() -> &'static PerCpuArray<Self::Account>;
    /// The slots by key.
    fn slots() -> &'static HashMap<Self::Key, u32>;
    /// Slots that are free.
    fn free() -> &'static Queue<u32>;
    /// The keys by slot.
    fn owners() -> &'static Array<Self::Key>;
    /// Slots that were found.
    fn hints() -> &'static PerCpuArray<Hints>;
}

/// Declares the maps of accounts, and the type that stands for them: the accounts
/// themselves, their slots by key, free slots, owners, and hints.
#[macro_export]
macro_rules! accounts_at_slots {
    ($name:ident: $key:ty => $account:ty, $full:expr,
     $accounts:ident $slots:ident $free:ident $owners:ident $hints:ident) => {
        #[aya_ebpf::macros::map]
        static $accounts: aya_ebpf::maps::PerCpuArray<$account> =
            aya_ebpf::maps::PerCpuArray::with_max_entries(1, 0);
        #[aya_ebpf::macros::map]
        static $slots: aya_ebpf::maps::HashMap<$key, u32> =
            aya_ebpf::maps::HashMap::with_max_entries(1, 0);
        #[aya_ebpf::macros::map]
        static $free: aya_ebpf::maps::Queue<u32> = aya_ebpf::maps::Queue::with_max_entries(1, 0);
        #[aya_ebpf::macros::map]
        static $owners: aya_ebpf::maps::Array<$key> = aya_ebpf::maps::Array::with_max_entries(1, 0);
        #[aya_ebpf::macros::map]
        static $hints: aya_ebpf::maps::PerCpuArray<$crate::slots::Hints> =
            aya_ebpf::maps::PerCpuArray::with_max_entries(1, 0);

        struct $name;
        impl $crate::slots::Slots for $name {
            type Key = $key;
            type Account = $account;
            const FULL: kldtrace_abi::loss::Loss = $full;
            #[inline(always)]
            fn accounts() -> &'static aya_ebpf::maps::PerCpuArray<$account> {
                &$accounts
            }
            #[inline(always)]
            fn slots() -> &'static aya_ebpf::maps::HashMap<$key, u32> {
                &$slots
            }
            #[inline(always)]
            fn free() -> &'static aya_ebpf::maps::Queue<u32> {
                &$free
            }
            #[inline(always)]
            fn owners() -> &'static aya_ebpf::maps::Array<$key> {
                &$owners
            }
            #[inline(always)]
            fn hints() -> &'static aya_ebpf::maps::PerCpuArray<$crate::slots::Hints> {
                &$hints
            }
        }
    };
}
pub use accounts_at_slots;

/// This CPU's account for a key, made if it is new.
#[inline(always)]
pub fn account<S: Slots>(key: &S::Key) -> Option<*mut S::Account> {
    account_at::<S>(slot::<S>(key))
}

/// This CPU's account at a slot.
#[inline(always)]
pub fn account_at<S: Slots>(slot: u32) -> Option<*mut S::Account> {
    S::accounts().get_ptr_mut(slot)
}

/// The slot of a key; 0: there is none.
#[inline(always)]
pub fn slot<S: Slots>(key: &S::Key) -> u32 {
    let slot = match S::hints().get_ptr(0) {
        // SAFETY: this CPU's own hint; the index is in bounds.
        Some(hints) => unsafe { *hints.cast::<u32>().add(hint(key)) },
        None => 0,
    };
    if owns::<S>(slot, key) {
        slot
    } else {
        find::<S>(key)
    }
}

/// The words of a key.
#[inline(always)]
fn words<K>(key: &K) -> impl Iterator<Item = *const u64> {
    let first = core::ptr::from_ref(key).cast::<u64>();
    (0..size_of::<K>() / 8).map(move |word| first.wrapping_add(word))
}

/// Where to look for a key's slot first.
#[inline(always)]
fn hint<K>(key: &K) -> usize {
    let mut factor = 0x9e37_79b9_7f4a_7c15_u64;
    let mut sum = 0_u64;
    for word in words(key) {
        // SAFETY: a word of the key. Products of odd numbers, and not one after
        // the other: a CPU makes them at the same time.
        sum = sum.wrapping_add(unsafe { *word }.wrapping_mul(factor));
        factor = factor.wrapping_mul(0xd134_2543_de82_ef95);
    }
    (sum >> (64 - HINT_BITS)) as usize
}

/// Whether a slot is a key's.
#[inline(always)]
fn owns<S: Slots>(slot: u32, key: &S::Key) -> bool {
    let Some(owner) = S::owners().get_ptr(slot) else {
        return false;
    };
    let owner = owner.cast::<u64>();
    // SAFETY: words of the key and of the map's value, which others write in
    // words: of what is half written, no key has all.
    words(key)
        .enumerate()
        .all(|(at, word)| unsafe { *word == owner.wrapping_add(at).read_volatile() })
}

/// Out of line: it runs where there is no good hint.
#[inline(never)]
fn find<S: Slots>(key: &S::Key) -> u32 {
    let slot = match S::slots().get_ptr(key) {
        // SAFETY: a value of the map.
        Some(slot) => unsafe { *slot },
        None => make::<S>(key),
    };
    if slot != 0
        && let Some(hints) = S::hints().get_ptr_mut(0)
    {
        // SAFETY: this CPU's own hint; the index is in bounds.
        unsafe { *hints.cast::<u32>().add(hint(key)) = slot };
    }
    slot
}

/// Takes a free slot.
#[inline(always)]
fn make<S: Slots>(key: &S::Key) -> u32 {
    let Ok(Some(slot)) = S::free().pop() else {
        lose(S::FULL);
        return 0;
    };
    if S::slots().insert(key, slot, BPF_NOEXIST.into()).is_ok() {
        if let Some(owner) = S::owners().get_ptr_mut(slot) {
            // SAFETY: a value of the map, of a slot that is nobody else's.
            unsafe { *owner = *key };
        }
        return slot;
    }
    let _ = S::free().push(slot, 0);
    match S::slots().get_ptr(key) {
        // Another CPU was first.
        // SAFETY: a value of the map.
        Some(slot) => unsafe { *slot },
        None => {
            lose(S::FULL);
            0
        }
    }
}
