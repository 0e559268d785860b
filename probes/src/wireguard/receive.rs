//! Messages of handshakes that come in, and why they are refused.
//!
//! `wg_receive_handshake_packet` (drivers/net/wireguard/receive.c) takes one
//! message after the other, each from beginning to end in one thread: it
//! checks the MAC, then consumes the message. What each step finds is kept by
//! thread until the message is done; the next message of the thread begins
//! anew whatever was left.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe, map},
    maps::LruHashMap,
    programs::{ProbeContext, RetProbeContext},
};
use kldtrace_abi::wireguard::{Address, Consuming, Failure, Message, PeerKey};

use super::{
    account::{account, add_at},
    event::failed,
    handshake::initiator_done,
    peer::{AF_INET, AF_INET6, Plain, argument, device_key, handshake, peer_key},
};
use crate::kernel::{Object, offsets};

offsets! {
    OFFSET___cookie_checker___device
    OFFSET___noise_handshake___last_initiation_consumption
    OFFSET___sk_buff___data
    OFFSET___sk_buff___head
    OFFSET___sk_buff___network_header
    OFFSET___sk_buff___transport_header
}

/// Threads that look at a message: workers of the interfaces' queues.
#[map]
static CONSUMING: LruHashMap<u64, Consuming> = LruHashMap::with_max_entries(1024, 0);

#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// Where a packet came from: its IP and UDP headers.
#[inline(always)]
fn source(skb: Plain) -> Address {
    static START: u64 = 0;
    static SOURCE4: u64 = 12;
    static SOURCE6: u64 = 8;
    let head: u64 = skb.get(&OFFSET___sk_buff___head);
    let at = |header: u16| -> Plain { Object((head + u64::from(header)) as *const u8) };
    let network = at(skb.get(&OFFSET___sk_buff___network_header));
    let transport = at(skb.get(&OFFSET___sk_buff___transport_header));
    let mut address = Address {
        family: 0,
        port: u32::from(u16::from_be(transport.get(&START))),
        bytes: [0; 2],
    };
    match network.get::<u8>(&START) >> 4 {
        4 => {
            address.family = AF_INET;
            address.bytes[0] = u64::from(network.get::<u32>(&SOURCE4));
        }
        6 => {
            address.family = AF_INET6;
            address.bytes = network.get(&SOURCE6);
        }
        _ => {}
    }
    address
}

#[inline(always)]
fn received(key: &PeerKey, message: u32) {
    let account = account(key);
    if !account.is_null() {
        // SAFETY: a value of the map. Types on the wire begin at 1.
        unsafe {
            add_at(
                &raw mut (*account).received,
                message.wrapping_sub(1) as usize,
                1,
            );
        }
    }
}

/// `enum cookie_mac_state wg_cookie_validate_packet(struct cookie_checker
/// *checker, struct sk_buff *skb, bool check_cookie)`
#[kprobe]
pub fn wg_validate_enter(ctx: ProbeContext) -> u32 {
    static START: u64 = 0;
    let skb = argument(&ctx, 1);
    let consuming = Consuming {
        device: argument(&ctx, 0).get(&OFFSET___cookie_checker___device),
        message: u32::from_le(skb.follow(&OFFSET___sk_buff___data).get(&START)),
        under_load: u32::from(ctx.arg::<u64>(2).unwrap_or_default() as u8),
        from: source(skb),
        looked: 0,
        found: 0,
        key: [0; 4],
    };
    let _ = CONSUMING.insert(thread(), consuming, 0);
    0
}

/// INVALID_MAC of `enum cookie_mac_state` (drivers/net/wireguard/cookie.h).
const INVALID_MAC: u32 = 0;
/// VALID_MAC_BUT_NO_COOKIE.
const NO_COOKIE: u32 = 1;
/// VALID_MAC_WITH_COOKIE_BUT_RATELIMITED.
const RATE_LIMITED: u32 = 2;

#[kretprobe]
pub fn wg_validate_return(ctx: RetProbeContext) -> u32 {
    let thread = thread();
    let Some(consuming) = CONSUMING.get_ptr(thread) else {
        return 0;
    };
    // SAFETY: a value of the map, which this thread alone writes.
    let (device, message, under_load, from) = unsafe {
        (
            (*consuming).device,
            (*consuming).message,
            (*consuming).under_load != 0,
            (*consuming).from,
        )
    };
    // As in wg_receive_handshake_packet.
    let failure = match ctx.ret::<u64>() as u32 {
        INVALID_MAC => Failure::InvalidMac,
        NO_COOKIE if under_load => Failure::CookieRequired,
        RATE_LIMITED => Failure::RateLimited,
        _ => return 0,
    };
    let key = device_key(Object(device as *const u8));
    received(&key, message);
    failed(&key, [0; 4], failure, 0, from);
    let _ = CONSUMING.remove(thread);
    0
}

/// `struct wg_peer *wg_pubkey_hashtable_lookup(struct pubkey_hashtable *table,
/// const u8 pubkey[NOISE_PUBLIC_KEY_LEN])`
#[kprobe]
pub fn wg_lookup_enter(ctx: ProbeContext) -> u32 {
    static START: u64 = 0;
    if let Some(consuming) = CONSUMING.get_ptr_mut(thread()) {
        // SAFETY: as above.
        unsafe {
            (*consuming).looked = 1;
            (*consuming).key = argument(&ctx, 1).get(&START);
        }
    }
    0
}

#[kretprobe]
pub fn wg_lookup_return(ctx: RetProbeContext) -> u32 {
    if let Some(consuming) = CONSUMING.get_ptr_mut(thread()) {
        // SAFETY: as above.
        unsafe { (*consuming).found = ctx.ret() };
    }
    0
}

/// 1 s through INITIATIONS_PER_SECOND of drivers/net/wireguard/messages.h.
const FLOOD: u64 = 1_000_000_000 / 50;

/// Why the initiation of a known peer was refused: as in
/// `wg_noise_handshake_consume_initiation`, which does not say.
#[inline(always)]
fn refused(peer: Plain) -> Failure {
    let last: u64 = handshake(peer).get(&OFFSET___noise_handshake___last_initiation_consumption);
    // SAFETY: the helper only reads a clock.
    let now = unsafe { aya_ebpf::helpers::bpf_ktime_get_boot_ns() };
    if last.wrapping_add(FLOOD) > now {
        Failure::Flood
    } else {
        Failure::Replay
    }
}

/// `struct wg_peer *wg_noise_handshake_consume_initiation(struct
/// message_handshake_initiation *src, struct wg_device *wg)`
#[kretprobe]
pub fn wg_initiation_return(ctx: RetProbeContext) -> u32 {
    let thread = thread();
    let Some(consuming) = CONSUMING.get_ptr(thread) else {
        return 0;
    };
    // SAFETY: as above.
    let (device, looked, found, key, from) = unsafe {
        (
            Object((*consuming).device as *const u8),
            (*consuming).looked != 0,
            (*consuming).found,
            (*consuming).key,
            (*consuming).from,
        )
    };
    let _ = CONSUMING.remove(thread);
    let message = Message::Initiation as u32 + 1;
    let accepted = ctx.ret::<u64>();
    if accepted != 0 {
        received(&peer_key(Object(accepted as *const u8)), message);
        return 0;
    }
    let mut labels = device_key(device);
    let failure = if found != 0 {
        labels.peer = key;
        refused(Object(found as *const u8))
    } else if looked {
        Failure::UnknownPeer
    } else {
        Failure::Undecryptable
    };
    received(&labels, message);
    // Zeros where none was looked for.
    failed(&labels, key, failure, 0, from);
    0
}

/// `struct wg_peer *wg_noise_handshake_consume_response(struct
/// message_handshake_response *src, struct wg_device *wg)`
#[kretprobe]
pub fn wg_response_return(ctx: RetProbeContext) -> u32 {
    let thread = thread();
    let message = Message::Response as u32 + 1;
    let accepted = ctx.ret::<u64>();
    if accepted != 0 {
        let _ = CONSUMING.remove(thread);
        let peer = Object(accepted as *const u8);
        received(&peer_key(peer), message);
        initiator_done(peer);
        return 0;
    }
    let Some(consuming) = CONSUMING.get_ptr(thread) else {
        return 0;
    };
    // SAFETY: as above.
    let (device, from) = unsafe { (Object((*consuming).device as *const u8), (*consuming).from) };
    let _ = CONSUMING.remove(thread);
    let key = device_key(device);
    received(&key, message);
    failed(&key, [0; 4], Failure::Response, 0, from);
    0
}

/// `void wg_cookie_message_consume(struct message_handshake_cookie *src, struct
/// wg_device *wg)`
#[kprobe]
pub fn wg_cookie_received(ctx: ProbeContext) -> u32 {
    received(&device_key(argument(&ctx, 1)), Message::Cookie as u32 + 1);
    0
}

/// `void wg_cookie_message_create(struct message_handshake_cookie *dst, struct
/// sk_buff *skb, __le32 index, struct cookie_checker *checker)`
#[kprobe]
pub fn wg_cookie_sent(ctx: ProbeContext) -> u32 {
    let device = argument(&ctx, 3).follow(&OFFSET___cookie_checker___device);
    let account = account(&device_key(device));
    if !account.is_null() {
        // SAFETY: a value of the map.
        unsafe { add_at(&raw mut (*account).sent, Message::Cookie as usize, 1) };
    }
    0
}
