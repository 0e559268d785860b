//! Segments: round-trip time, retransmissions, resets.
//!
//! Of include/trace/events/tcp.h:
//! - `tcp_probe(struct sock *sk, const struct sk_buff *skb)`: a segment came
//!   in on an established connection;
//! - `tcp_retransmit_skb(const struct sock *sk, const struct sk_buff *skb
//!   [, int err])`, called once for each call, whatever number of segments
//!   the buffer holds: `/proc/net/snmp` counts those, and so does this. With
//!   the error (6.16) it is called for each attempt, without it for those
//!   that succeeded;
//! - `tcp_retransmit_synack(const struct sock *sk, const struct request_sock
//!   *req)`;
//! - `tcp_send_reset(const struct sock *sk, const struct sk_buff *skb [, ...])`:
//!   `sk` is NULL where no socket matched, `skb` where this side aborts;
//! - `tcp_receive_reset(struct sock *sk)`.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use kldtrace_abi::{
    histogram::Histogram,
    tcp::{Retransmit, Tcp, TcpKey},
};

use super::{TcpAccounts, interface, labels, tcp_sock};
use kldtrace_probes::slots::account;

use crate::kernel::{Object, Typed, offsets, on, settings};

settings! {
    /// Whether `tcp_retransmit_skb` tells an error.
    RETRANSMIT_TELLS_ERROR
}

offsets! {
    OFFSET___sock_____sk_common___skc_state
    OFFSET___tcp_sock___srtt_us
    OFFSET___sk_buff___cb
    OFFSET___sk_buff___dev
    OFFSET___sk_buff___protocol
    OFFSET___tcp_skb_cb___tcp_gso_segs
}

// include/net/tcp_states.h
const SYN_SENT: u8 = 2;
const TIME_WAIT: u8 = 6;
const NEW_SYN_RECV: u8 = 12;

/// A segment came in.
#[btf_tracepoint(function = "tcp_probe")]
pub fn tcp_probe(ctx: BtfTracePointContext) -> i32 {
    let socket: Typed = Object(ctx.arg(0));
    let Some(tcp) = tcp_sock(socket) else {
        return 0;
    };
    // tcp_sock keeps it in eighths of a microsecond, 0 before the first.
    let eighths: u32 = tcp.get(&OFFSET___tcp_sock___srtt_us);
    if eighths != 0
        && let Some(account) = account::<TcpAccounts>(&labels(socket))
    {
        // SAFETY: this CPU's own account.
        unsafe { Histogram::record(&raw mut (*account).srtt, u64::from(eighths) * 125) };
    }
    0
}

/// A buffer is sent again.
#[btf_tracepoint(function = "tcp_retransmit_skb")]
pub fn tcp_retransmit_skb(ctx: BtfTracePointContext) -> i32 {
    let socket: Typed = Object(ctx.arg(0));
    let buffer: Typed = Object(ctx.arg(1));
    if on(&RETRANSMIT_TELLS_ERROR) && never_tried(ctx.arg(2)) {
        return 0;
    }
    let segments: u16 = buffer
        .part(&OFFSET___sk_buff___cb)
        .get(&OFFSET___tcp_skb_cb___tcp_gso_segs);
    let state: u8 = socket.get(&OFFSET___sock_____sk_common___skc_state);
    let kind = if state == SYN_SENT {
        Retransmit::Syn
    } else {
        Retransmit::Data
    };
    retransmitted(&labels(socket), kind, segments.into());
    0
}

/// Whether `__tcp_retransmit_skb` (net/ipv4/tcp_output.c) gave up before it
/// counted: `EBUSY`, the first copy has not left this host yet; `EAGAIN`, the
/// peer's window is full; `EINVAL`; `ENOMEM`; `EHOSTUNREACH`, no route. Other
/// errors are those of sending, and counted.
#[inline(always)]
fn never_tried(error: i32) -> bool {
    matches!(-error, 16 | 11 | 22 | 12 | 113)
}

/// A SYN-ACK is sent again.
#[btf_tracepoint(function = "tcp_retransmit_synack")]
pub fn tcp_retransmit_synack(ctx: BtfTracePointContext) -> i32 {
    retransmitted(&labels(Object(ctx.arg(0))), Retransmit::SynAck, 1);
    0
}

#[inline(always)]
fn retransmitted(key: &TcpKey, kind: Retransmit, segments: u64) {
    if let Some(account) = account::<TcpAccounts>(key) {
        // SAFETY: this CPU's own account; the index is a `Retransmit`.
        unsafe {
            let retransmits = (&raw mut (*account).retransmits).cast::<u64>();
            *retransmits.add(kind as usize) += segments;
        }
    }
}

/// A reset is sent.
#[btf_tracepoint(function = "tcp_send_reset")]
pub fn tcp_send_reset(ctx: BtfTracePointContext) -> i32 {
    let socket: Typed = Object(ctx.arg(0));
    let buffer: Typed = Object(ctx.arg(1));
    if !socket.is_null() {
        let state: u8 = socket.get(&OFFSET___sock_____sk_common___skc_state);
        // These two are smaller than a sock: they have no cgroup or route.
        if state != TIME_WAIT && state != NEW_SYN_RECV {
            let mut key = labels(socket);
            // A listener has no route: the interface is the segment's.
            if key.interface[0] == 0 && !buffer.is_null() {
                key.interface = interface(buffer.follow(&OFFSET___sk_buff___dev));
            }
            reset(&key, |account| &raw mut account.resets_sent);
            return 0;
        }
    }
    if buffer.is_null() {
        return 0;
    }
    // ETH_P_IP, as the network has it (include/uapi/linux/if_ether.h).
    let ipv4 = buffer.get::<u16>(&OFFSET___sk_buff___protocol) == 0x0800_u16.to_be();
    let key = TcpKey {
        cgroup: 0,
        interface: interface(buffer.follow(&OFFSET___sk_buff___dev)),
        family: if ipv4 { 2 } else { 10 },
    };
    reset(&key, |account| &raw mut account.resets_sent);
    0
}

/// A reset came in.
#[btf_tracepoint(function = "tcp_receive_reset")]
pub fn tcp_receive_reset(ctx: BtfTracePointContext) -> i32 {
    reset(&labels(Object(ctx.arg(0))), |account| {
        &raw mut account.resets_received
    });
    0
}

#[inline(always)]
fn reset(key: &TcpKey, counter: impl FnOnce(&mut Tcp) -> *mut u64) {
    if let Some(account) = account::<TcpAccounts>(key) {
        // SAFETY: this CPU's own account.
        unsafe { *counter(&mut *account) += 1 };
    }
}
