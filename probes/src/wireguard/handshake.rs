//! Handshakes of known peers: sent, answered, completed, given up.
//!
//! Both roles measure a round trip of the network. The initiator's is from the
//! making of its initiation to the session that the response makes: the way
//! there and back, and the two ends' arithmetic. The responder's is from the
//! sending of its response to the first packet in the new session, which the
//! initiator sends at once: `wg_packet_send_keepalive` in
//! `wg_receive_handshake_packet` (drivers/net/wireguard/receive.c).
//!
//! The kernel's own time of sending, `last_sent_handshake`, is coarse (a tick,
//! 1 to 10 ms), so the beginning is kept here, by `struct noise_handshake`,
//! which lies in its peer and has one handshake of each role under way.

use aya_ebpf::{
    macros::{kprobe, map},
    maps::HashMap,
    programs::ProbeContext,
};
use kldtrace_abi::{
    loss::Loss,
    wireguard::{Failure, Message, Role, Start, UNANSWERED},
};

use super::{
    account::{account, add, add_at, record},
    event::{completed, peer_failed},
    peer::{Plain, argument, bytes, container, handshake, peer_key, why},
};
use crate::{
    accounts::lose,
    kernel::{now, offsets},
};

offsets! {
    OFFSET___noise_handshake___entry___peer
    OFFSET___wg_peer___is_dead
    OFFSET___wg_peer___staged_packet_queue___qlen
    OFFSET___wg_peer___timer_handshake_attempts
    OFFSET___wg_peer___timer_retransmit_handshake
}

/// Handshakes under way. A new attempt takes the place of the last; the end of
/// its peer takes away what is left.
#[map]
static HANDSHAKES: HashMap<u64, Start> = HashMap::with_max_entries(1, 0);

/// The `struct noise_handshake` is aligned: its last bit can tell the role.
#[inline(always)]
fn start_key(peer: Plain, role: Role) -> u64 {
    handshake(peer).0 as u64 | role as u64
}

#[inline(always)]
fn start(peer: Plain, role: Role) {
    let start = Start {
        at: now(),
        why: why(peer) as u64,
    };
    if HANDSHAKES.insert(start_key(peer, role), start, 0).is_err() {
        lose(Loss::WireguardStart);
    }
}

#[inline(always)]
fn forget(peer: Plain, role: Role) {
    let _ = HANDSHAKES.remove(start_key(peer, role));
}

/// Ends a handshake that was begun in this role; whether there was one.
#[inline(always)]
fn end(peer: Plain, role: Role) -> bool {
    let key = start_key(peer, role);
    let Some(start) = HANDSHAKES.get_ptr(key) else {
        return false;
    };
    // SAFETY: a value of the map.
    let Start { at, why } = unsafe { *start };
    let why = why & !UNANSWERED;
    let _ = HANDSHAKES.remove(key);
    let took = now().saturating_sub(at);
    let key = peer_key(peer);
    let account = account(&key);
    if account.is_null() {
        return true;
    }
    // SAFETY: a value of the map; roles are 0 and 1.
    unsafe {
        record(
            (&raw mut (*account).latency)
                .cast::<kldtrace_abi::histogram::Histogram>()
                .add(role as usize),
            took,
        );
        add_at::<4>(
            (&raw mut (*account).handshakes)
                .cast::<[u64; 4]>()
                .add(role as usize),
            why as usize,
            1,
        );
    }
    completed(peer, &key, role, why, took);
    true
}

/// The initiator's session is there. A session as responder that the peer has
/// not used yet never will be confirmed (noise.c: `add_new_keypair`).
#[inline(always)]
pub fn initiator_done(peer: Plain) {
    end(peer, Role::Initiator);
    forget(peer, Role::Responder);
}

#[inline(always)]
fn sent(peer: Plain, message: Message) {
    let account = account(&peer_key(peer));
    if !account.is_null() {
        // SAFETY: a value of the map.
        unsafe { add_at(&raw mut (*account).sent, message as usize, 1) };
    }
}

#[inline(always)]
fn retried(peer: Plain) {
    let account = account(&peer_key(peer));
    if !account.is_null() {
        // SAFETY: a value of the map.
        unsafe { add(&raw mut (*account).retries, 1) };
    }
}

/// `bool wg_noise_handshake_create_initiation(struct
/// message_handshake_initiation *dst, struct noise_handshake *handshake)`
///
/// While packets for the peer keep coming, it is they that begin the next
/// attempt after 5 s: they set the timer anew and its count of attempts to 0
/// (send.c: `wg_packet_send_queued_handshake_initiation`), so that it never
/// says that there was no answer. An attempt that still waits says so here.
#[kprobe]
pub fn wg_create_initiation(ctx: ProbeContext) -> u32 {
    let peer = argument(&ctx, 1).follow(&OFFSET___noise_handshake___entry___peer);
    if let Some(last) = HANDSHAKES.get_ptr(start_key(peer, Role::Initiator)) {
        // SAFETY: a value of the map.
        let told = unsafe { (*last).why } & UNANSWERED != 0;
        if !told {
            peer_failed(peer, Failure::NoAnswer, 1);
        }
        retried(peer);
    }
    start(peer, Role::Initiator);
    0
}

/// `void wg_timers_handshake_initiated(struct wg_peer *peer)`: after an
/// initiation was given to the socket.
#[kprobe]
pub fn wg_initiation_sent(ctx: ProbeContext) -> u32 {
    sent(argument(&ctx, 0), Message::Initiation);
    0
}

/// `void wg_packet_send_handshake_response(struct wg_peer *peer)`
#[kprobe]
pub fn wg_response_sent(ctx: ProbeContext) -> u32 {
    let peer = argument(&ctx, 0);
    start(peer, Role::Responder);
    sent(peer, Message::Response);
    0
}

/// `void wg_timers_handshake_complete(struct wg_peer *peer)`: the initiator has
/// its session, or the responder has received the first packet in its own.
/// The initiator's was ended at the response, and left no start of a responder.
#[kprobe]
pub fn wg_handshake_complete(ctx: ProbeContext) -> u32 {
    let peer = argument(&ctx, 0);
    if end(peer, Role::Responder) {
        // What this side had begun was given up for the peer's.
        forget(peer, Role::Initiator);
    }
    0
}

/// MAX_TIMER_HANDSHAKES of drivers/net/wireguard/messages.h: 90 s of
/// REKEY_TIMEOUT, 5 s each.
const MOST_ATTEMPTS: u32 = 18;

/// `void wg_expired_retransmit_handshake(struct timer_list *timer)`: no answer
/// in time.
#[kprobe]
pub fn wg_no_answer(ctx: ProbeContext) -> u32 {
    let peer = container(
        argument(&ctx, 0),
        &OFFSET___wg_peer___timer_retransmit_handshake,
    );
    let attempts: u32 = peer.get(&OFFSET___wg_peer___timer_handshake_attempts);
    let failure = if attempts > MOST_ATTEMPTS {
        forget(peer, Role::Initiator);
        Failure::GaveUp
    } else {
        if let Some(start) = HANDSHAKES.get_ptr_mut(start_key(peer, Role::Initiator)) {
            // SAFETY: a value of the map.
            unsafe { (*start).why |= UNANSWERED };
        }
        Failure::NoAnswer
    };
    peer_failed(peer, failure, attempts + 1);
    0
}

/// `void wg_packet_purge_staged_packets(struct wg_peer *peer)`: what waited for
/// a session is dropped, as no answer came, the interface goes down, or the
/// last reference to the peer is gone (peer.c: `kref_release`): then its
/// counters are final.
#[kprobe]
pub fn wg_purge(ctx: ProbeContext) -> u32 {
    let peer = argument(&ctx, 0);
    let waited: u32 = peer.get(&OFFSET___wg_peer___staged_packet_queue___qlen);
    let dead = peer.get::<u8>(&OFFSET___wg_peer___is_dead) != 0;
    // An interface that goes down awaits no answer.
    forget(peer, Role::Initiator);
    if waited == 0 && !dead {
        return 0;
    }
    let account = account(&peer_key(peer));
    // SAFETY: a value of the map, where it is not null.
    unsafe {
        if !account.is_null() {
            add(&raw mut (*account).staged_dropped, waited.into());
        }
        if dead {
            forget(peer, Role::Responder);
            if !account.is_null() {
                let (received, sent) = bytes(peer);
                add(&raw mut (*account).received_bytes, received);
                add(&raw mut (*account).sent_bytes, sent);
            }
        }
    }
    0
}
