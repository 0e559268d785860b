//! What is remembered of kernel objects while they live, by their addresses.
//!
//! A table of sets of three places in one array, and not a hash of the kernel or
//! the storage that it lends: putting a socket in and taking it out again cost more
//! there than all else that is done at its changes of state
//! (docs/src/journal/2026-11-29-tcp-state-cost.md). Who finds the object's own set
//! full looks for room in the next ones, and the set counts that.
//!
//! Each object must leave the table before the kernel frees it, and nobody may do
//! anything to an object's place beside another, but for taking it.

use aya_ebpf::maps::{Array, PerCpuArray};
use kldtrace_abi::{
    loss::Loss,
    places::{PLACES, Place, Set, own_set},
};

use crate::{accounts::lose, atomic};

/// Objects of one kind and where they lie.
pub trait Places {
    /// What is remembered of one.
    type Place: Place;
    /// What to count where there is no room.
    const FULL: Loss;
    /// The table.
    fn table() -> &'static Array<Set<Self::Place>>;
    /// Objects in the table: each CPU counts what it put in and took out. A walk
    /// over the table would be long.
    fn now() -> &'static PerCpuArray<i64>;
    /// Sets of the table.
    fn sets() -> u64;
}

/// Declares the maps of a table and the number of its sets, and the type that
/// stands for them.
///
/// What user space could map begins with a page, and so each set with a line of
/// memory; nobody maps it.
#[macro_export]
macro_rules! places {
    ($name:ident: $place:ty, $full:expr, $table:ident $now:ident $sets:ident) => {
        #[aya_ebpf::macros::map]
        static $table: aya_ebpf::maps::Array<kldtrace_abi::places::Set<$place>> =
            aya_ebpf::maps::Array::with_max_entries(1, aya_ebpf::bindings::BPF_F_MMAPABLE);
        #[aya_ebpf::macros::map]
        static $now: aya_ebpf::maps::PerCpuArray<i64> =
            aya_ebpf::maps::PerCpuArray::with_max_entries(1, 0);
        $crate::settings! { $sets }

        struct $name;
        impl $crate::places::Places for $name {
            type Place = $place;
            const FULL: kldtrace_abi::loss::Loss = $full;
            #[inline(always)]
            fn table() -> &'static aya_ebpf::maps::Array<kldtrace_abi::places::Set<$place>> {
                &$table
            }
            #[inline(always)]
            fn now() -> &'static aya_ebpf::maps::PerCpuArray<i64> {
                &$now
            }
            #[inline(always)]
            fn sets() -> u64 {
                $crate::kernel::setting(&$sets)
            }
        }
    };
}
pub use places;

/// Sets that are looked at where an object's own has no room.
const REACH: u32 = 16;

#[inline(always)]
fn count<T: Places>(change: i64) {
    if let Some(count) = T::now().get_ptr_mut(0) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += change };
    }
}

/// What is remembered of an object ([`crate::kernel::Object::identity`]).
#[inline(always)]
pub fn remembered<T: Places>(address: u64) -> Option<*mut T::Place> {
    let set = T::table().get_ptr_mut(own_set(address, T::sets()))?;
    // SAFETY: a value of the map; places of others are only compared.
    unsafe {
        let place = place_of(set, address);
        if !place.is_null() {
            return Some(place);
        }
        if (*set).elsewhere == 0 {
            return None;
        }
    }
    let place = look_further::<T>(address);
    (!place.is_null()).then_some(place)
}

/// The place in a set that has this address; null: none.
///
/// # Safety
/// `set` is a value of the map.
#[inline(always)]
unsafe fn place_of<P: Place>(set: *mut Set<P>, address: u64) -> *mut P {
    // SAFETY: by contract, and the index is in bounds.
    unsafe {
        let places = (&raw mut (*set).places).cast::<P>();
        for index in 0..PLACES {
            let place = places.add(index);
            if P::address(place).read_volatile() == address {
                return place;
            }
        }
    }
    core::ptr::null_mut()
}

/// Sets behind the one of an address.
#[inline(always)]
fn behind<T: Places>(
    address: u64,
    each: impl Fn(*mut Set<T::Place>) -> *mut T::Place,
) -> *mut T::Place {
    let sets = T::sets() as u32;
    let mut number = own_set(address, sets.into());
    for _ in 0..REACH {
        number += 1;
        if number >= sets {
            number = 0;
        }
        if let Some(set) = T::table().get_ptr_mut(number) {
            let place = each(set);
            if !place.is_null() {
                return place;
            }
        }
    }
    core::ptr::null_mut()
}

/// Out of line: it is rare.
#[inline(never)]
fn look_further<T: Places>(address: u64) -> *mut T::Place {
    // SAFETY: values of the map.
    behind::<T>(address, |set| unsafe { place_of(set, address) })
}

/// Begins to remember an object that is not. What was remembered of another is
/// still there, but for what this module writes.
#[inline(always)]
pub fn remember<T: Places>(address: u64) -> Option<*mut T::Place> {
    let set = T::table().get_ptr_mut(own_set(address, T::sets()))?;
    // SAFETY: a value of the map.
    let mut place = unsafe { take(set, address) };
    let mut elsewhere = 0;
    if place.is_null() {
        place = take_further::<T>(address);
        elsewhere = 1;
    }
    if place.is_null() {
        lose(T::FULL);
        return None;
    }
    // SAFETY: the place is this object's now.
    unsafe { *Place::elsewhere(place) = elsewhere };
    count::<T>(1);
    Some(place)
}

/// Takes a free place of a set.
///
/// # Safety
/// `set` is a value of the map.
#[inline(always)]
unsafe fn take<P: Place>(set: *mut Set<P>, address: u64) -> *mut P {
    // SAFETY: by contract, and the index is in bounds.
    unsafe {
        let places = (&raw mut (*set).places).cast::<P>();
        for index in 0..PLACES {
            let place = places.add(index);
            let owner = P::address(place);
            if owner.read_volatile() == 0 && atomic::take(owner, address) {
                return place;
            }
        }
    }
    core::ptr::null_mut()
}

/// Out of line, as above.
#[inline(never)]
fn take_further<T: Places>(address: u64) -> *mut T::Place {
    // SAFETY: values of the map.
    let place = behind::<T>(address, |set| unsafe { take(set, address) });
    if !place.is_null() {
        count_elsewhere::<T>(address, 1);
    }
    place
}

/// Forgets an object; nothing of its place may be read after that.
///
/// # Safety
/// `place` is the object's.
#[inline(always)]
pub unsafe fn forget<T: Places>(address: u64, place: *mut T::Place) {
    // SAFETY: by contract.
    unsafe {
        let elsewhere = *Place::elsewhere(place);
        atomic::give_back(Place::address(place));
        if elsewhere != 0 {
            count_elsewhere::<T>(address, u64::MAX);
        }
    }
    count::<T>(-1);
}

/// Out of line, as above.
#[inline(never)]
fn count_elsewhere<T: Places>(address: u64, more: u64) {
    if let Some(set) = T::table().get_ptr_mut(own_set(address, T::sets())) {
        // SAFETY: a value of the map.
        unsafe { atomic::add(&raw mut (*set).elsewhere, more) };
    }
}
