//! Accounts by interface and peer, which all CPUs share: handshakes are rare,
//! and a value for each CPU would take CPUs times the memory.

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::bpf_map_update_elem,
    macros::map,
    maps::{Array, HashMap},
};
use kldtrace_abi::{
    histogram::{Histogram, SLOTS, slot_of},
    loss::Loss,
    wireguard::{Peer, PeerKey},
};

pub use kldtrace_probes::atomic::add;

use crate::accounts::lose;

#[map]
static WIREGUARD: HashMap<PeerKey, Peer> = HashMap::with_max_entries(1, 0);
/// One account of zeros: too large for the stack.
#[map]
static WIREGUARD_ZERO: Array<Peer> = Array::with_max_entries(1, 0);

/// The account of an interface and peer, made if it is new.
#[inline(never)]
pub fn account(key: &PeerKey) -> *mut Peer {
    if let Some(account) = WIREGUARD.get_ptr_mut(key) {
        return account;
    }
    if let Some(zero) = WIREGUARD_ZERO.get_ptr(0) {
        // SAFETY: map, key and value have the types that the map was made
        // with. Another CPU may have been first: then this does nothing.
        unsafe {
            bpf_map_update_elem(
                (&raw const WIREGUARD).cast_mut().cast(),
                core::ptr::from_ref(key).cast(),
                zero.cast(),
                BPF_NOEXIST.into(),
            )
        };
    }
    if let Some(account) = WIREGUARD.get_ptr_mut(key) {
        return account;
    }
    lose(Loss::WireguardSeries);
    WIREGUARD
        .get_ptr_mut(PeerKey::OTHER)
        .unwrap_or(core::ptr::null_mut())
}

/// Adds to one of several counters.
///
/// # Safety
/// `counters` lies in a map's value.
#[inline(always)]
pub unsafe fn add_at<const N: usize>(counters: *mut [u64; N], index: usize, more: u64) {
    // The verifier needs the bound; the compiler would prove it away.
    let index = core::hint::black_box(index);
    if index < N {
        // SAFETY: in bounds, and by contract.
        unsafe { add(counters.cast::<u64>().add(index), more) };
    }
}

/// Adds one duration to a histogram that other CPUs add to.
///
/// # Safety
/// `histogram` lies in a map's value.
#[inline(always)]
pub unsafe fn record(histogram: *mut Histogram, nanoseconds: u64) {
    // SAFETY: by contract.
    unsafe {
        add_at::<SLOTS>(&raw mut (*histogram).slots, slot_of(nanoseconds), 1);
        add(&raw mut (*histogram).sum, nanoseconds);
    }
}
