//! What is remembered of each socket while it lives, by its address.
//!
//! A table of sets of three places in one array, and not a hash of the kernel:
//! putting a socket in and taking it out again cost more there than all else that
//! is done at its changes of state (docs/src/journal/2026-11-29-tcp-state-cost.md),
//! and socket storage costs more still (2026-11-23-tcp-cost.md). Who finds the
//! socket's own set full looks for room in the next ones, and the set counts that.
//!
//! Every socket passes through `TCP_CLOSE` before it is freed
//! (`inet_csk_destroy_sock` warns otherwise), and leaves the table there. All that
//! is done to a place is done under the lock of its socket, but for taking it.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    macros::map,
    maps::{Array, PerCpuArray},
};
use kldtrace_abi::{
    loss::Loss,
    tcp::{PLACES, Phase, Socket, SocketSet, socket_set},
};
use kldtrace_probes::atomic;

use crate::{
    accounts::lose,
    kernel::{Typed, setting, settings},
};

settings! {
    /// Sets of the table.
    SOCKET_SETS
}

/// The table. What user space could map begins with a page, and so each set with
/// a line of memory; nobody maps it.
#[map]
static SOCKETS: Array<SocketSet> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Sockets in the table: each CPU counts what it put in and took out. A walk
/// over the table would be long.
#[map]
static SOCKETS_NOW: PerCpuArray<i64> = PerCpuArray::with_max_entries(1, 0);

/// Sets that are looked at where a socket's own has no room.
const REACH: u32 = 16;

#[inline(always)]
fn count(change: i64) {
    if let Some(count) = SOCKETS_NOW.get_ptr_mut(0) {
        // SAFETY: this CPU's own counter.
        unsafe { *count += change };
    }
}

/// The set that a socket of this address belongs to.
#[inline(always)]
fn own_set(address: u64) -> Option<*mut SocketSet> {
    SOCKETS.get_ptr_mut(socket_set(address, setting(&SOCKET_SETS)))
}

/// What is remembered of a socket.
#[inline(always)]
pub fn remembered(socket: Typed) -> Option<*mut Socket> {
    let address = socket.identity();
    let set = own_set(address)?;
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
    let place = look_further(address);
    (!place.is_null()).then_some(place)
}

/// The place in a set that has this address; null: none.
///
/// # Safety
/// `set` is a value of the map.
#[inline(always)]
unsafe fn place_of(set: *mut SocketSet, address: u64) -> *mut Socket {
    // SAFETY: by contract, and the index is in bounds.
    unsafe {
        let sockets = (&raw mut (*set).sockets).cast::<Socket>();
        for index in 0..PLACES {
            let socket = sockets.add(index);
            if (&raw const (*socket).address).read_volatile() == address {
                return socket;
            }
        }
    }
    core::ptr::null_mut()
}

/// Sets behind the one of an address.
#[inline(always)]
fn behind(address: u64, each: impl Fn(*mut SocketSet) -> *mut Socket) -> *mut Socket {
    let sets = setting(&SOCKET_SETS) as u32;
    let mut number = socket_set(address, sets.into());
    for _ in 0..REACH {
        number += 1;
        if number >= sets {
            number = 0;
        }
        if let Some(set) = SOCKETS.get_ptr_mut(number) {
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
fn look_further(address: u64) -> *mut Socket {
    // SAFETY: values of the map.
    behind(address, |set| unsafe { place_of(set, address) })
}

/// Begins to remember a socket that is not.
#[inline(always)]
pub fn remember(socket: Typed, since: u64, phase: Phase, interface: [u64; 2]) {
    let address = socket.identity();
    let Some(set) = own_set(address) else {
        return;
    };
    // SAFETY: a value of the map.
    let mut place = unsafe { take(set, address) };
    let mut elsewhere = 0;
    if place.is_null() {
        place = take_further(address);
        elsewhere = 1;
    }
    if place.is_null() {
        lose(Loss::TcpStart);
        return;
    }
    // SAFETY: the place is this socket's now, whose lock is held.
    unsafe {
        (*place).since = since;
        (*place).phase = phase as u32;
        (*place).elsewhere = elsewhere;
        (*place).interface = interface;
    }
    count(1);
}

/// Takes a free place of a set.
///
/// # Safety
/// `set` is a value of the map.
#[inline(always)]
unsafe fn take(set: *mut SocketSet, address: u64) -> *mut Socket {
    // SAFETY: by contract, and the index is in bounds.
    unsafe {
        let sockets = (&raw mut (*set).sockets).cast::<Socket>();
        for index in 0..PLACES {
            let socket = sockets.add(index);
            let place = &raw mut (*socket).address;
            if place.read_volatile() == 0 && atomic::take(place, address) {
                return socket;
            }
        }
    }
    core::ptr::null_mut()
}

/// Out of line, as above.
#[inline(never)]
fn take_further(address: u64) -> *mut Socket {
    // SAFETY: values of the map.
    let place = behind(address, |set| unsafe { take(set, address) });
    if !place.is_null() {
        count_elsewhere(address, 1);
    }
    place
}

/// Forgets a socket; nothing of its place may be read after that.
///
/// # Safety
/// `place` is the socket's.
#[inline(always)]
pub unsafe fn forget(socket: Typed, place: *mut Socket) {
    // SAFETY: by contract.
    unsafe {
        let elsewhere = (*place).elsewhere;
        atomic::give_back(&raw mut (*place).address);
        if elsewhere != 0 {
            count_elsewhere(socket.identity(), u64::MAX);
        }
    }
    count(-1);
}

/// Out of line, as above.
#[inline(never)]
fn count_elsewhere(address: u64, more: u64) {
    if let Some(set) = own_set(address) {
        // SAFETY: a value of the map.
        unsafe { atomic::add(&raw mut (*set).elsewhere, more) };
    }
}
