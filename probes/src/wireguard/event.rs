//! Handshakes and failures as events, so many in a second.

use aya_ebpf::{
    macros::map,
    maps::{Array, RingBuf},
};
use kldtrace_abi::{
    loss::Loss,
    wireguard::{
        Address, Budget, EVENTS_PER_SECOND, FAILURE, Failure, HANDSHAKE, HandshakeEvent, PeerKey,
        Role, Why,
    },
};

use super::{
    account::{account, add, add_at},
    peer::{Plain, endpoint, peer_key},
};
use crate::{accounts::lose, kernel::now};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// By event kind and what it is of: failures first.
#[map]
static BUDGETS: Array<Budget> = Array::with_max_entries(16, 0);

/// The budget of completed handshakes, behind those of failures.
const OF_HANDSHAKES: u32 = 15;

/// Whether there is room in this second. Two CPUs at the turn of a second may
/// let a few more through.
#[inline(always)]
fn allowed(which: u32, at: u64) -> bool {
    let Some(budget) = BUDGETS.get_ptr_mut(which) else {
        return false;
    };
    let second = at / 1_000_000_000;
    // SAFETY: a value of the map.
    let before = unsafe {
        if (*budget).second != second {
            (*budget).second = second;
            (*budget).events = 0;
        }
        let before = (*budget).events;
        add(&raw mut (*budget).events, 1);
        before
    };
    if before >= EVENTS_PER_SECOND {
        lose(Loss::WireguardEvent);
    }
    before < EVENTS_PER_SECOND
}

#[inline(always)]
fn tell(event: HandshakeEvent) {
    if EVENTS.output::<HandshakeEvent>(&event, 0).is_err() {
        lose(Loss::Event);
    }
}

/// A handshake was completed.
#[inline(always)]
pub fn completed(peer: Plain, key: &PeerKey, role: Role, why: u64, took: u64) {
    let at = now();
    if allowed(OF_HANDSHAKES, at) {
        tell(HandshakeEvent {
            kind: HANDSHAKE,
            what: role as u32,
            why: why as u32,
            attempts: 0,
            at,
            took,
            key: *key,
            address: endpoint(peer),
        });
    }
}

/// Counts a failure, and tells of it; `public` is the key that it is about,
/// also where it is no peer's.
#[inline(always)]
pub fn failed(key: &PeerKey, public: [u64; 4], failure: Failure, attempts: u32, address: Address) {
    let account = account(key);
    if !account.is_null() {
        // SAFETY: a value of the map.
        unsafe { add_at(&raw mut (*account).failures, failure as usize, 1) };
    }
    let at = now();
    if allowed(failure as u32, at) {
        tell(HandshakeEvent {
            kind: FAILURE,
            what: failure as u32,
            why: Why::New as u32,
            attempts,
            at,
            took: 0,
            key: PeerKey {
                peer: public,
                ..*key
            },
            address,
        });
    }
}

/// The same, of a known peer.
#[inline(always)]
pub fn peer_failed(peer: Plain, failure: Failure, attempts: u32) {
    let key = peer_key(peer);
    failed(&key, key.peer, failure, attempts, endpoint(peer));
}
