//! A connection's life: connecting, failing, queueing, living, closing.
//!
//! `inet_sock_set_state` of include/trace/events/sock.h:
//! `(const struct sock *sk, const int oldstate, const int newstate)`. It
//! fires for SCTP and MPTCP sockets too. In `tcp_set_state` it fires before
//! the state is written; the socket's error is already there.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use kldtrace_abi::{
    histogram::Histogram,
    loss::Loss,
    tcp::{ConnectFailure, Phase, STATES, Socket, Tcp, TcpKey},
};

use super::{
    TcpAccounts, labels,
    sockets::{forget, remember, remembered},
    tcp_sock,
};
use kldtrace_probes::slots::account;

use crate::{
    accounts::lose,
    kernel::{Object, Typed, now, offsets, on, settings},
};

offsets! {
    OFFSET___sock___sk_protocol
    OFFSET___sock___sk_err
    OFFSET___sock___sk_socket
    OFFSET___sock_____sk_common___skc_flags
    OFFSET___tcp_sock___bytes_sent
    OFFSET___tcp_sock___bytes_retrans
    OFFSET___tcp_sock___bytes_received
}

settings! {
    /// Connect latency.
    SWITCH_TCP_CONNECT
    /// Accept-queue latency.
    SWITCH_TCP_ACCEPT
    /// Lifetime.
    SWITCH_TCP_LIFETIME
    /// Bytes, counted when a connection closes.
    SWITCH_TCP_BYTES
    /// Failed connects.
    SWITCH_TCP_FAILURES
}

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const FIN_WAIT1: i32 = 4;
const CLOSE: i32 = 7;
const LAST_ACK: i32 = 9;
const IPPROTO_TCP: u16 = 6;
/// The peer's FIN came in (`tcp_fin`); include/net/sock.h: enum `sock_flags`.
const SOCK_DONE: u64 = 1 << 1;

/// A socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let socket: Typed = Object(ctx.arg(0));
    if socket.get::<u16>(&OFFSET___sock___sk_protocol) != IPPROTO_TCP {
        return 0;
    }
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let mut key = labels(socket);
    // Looked up before the account: it may know an interface that the socket
    // has forgotten.
    let memory = if wants_memory() && new == CLOSE {
        remembered(socket)
    } else {
        None
    };
    if let Some(memory) = memory
        && key.interface[0] == 0
    {
        // A time-out takes the route from an IPv6 socket before it closes
        // (`ip6_negative_advice`, net/ipv6/route.c).
        // SAFETY: the socket's own memory, under the socket's lock.
        key.interface = unsafe { (*memory).interface };
    }
    let Some(account) = account::<TcpAccounts>(&key) else {
        return 0;
    };
    // SAFETY: this CPU's own account; the index is checked.
    unsafe {
        let index = (new - ESTABLISHED).cast_unsigned() as usize;
        if index < STATES.len() {
            let states = (&raw mut (*account).states).cast::<u64>();
            *states.add(index) += 1;
        }
        if on(&SWITCH_TCP_FAILURES) && old == SYN_SENT && new == CLOSE {
            let reason = ConnectFailure::from_errno(socket.get(&OFFSET___sock___sk_err));
            let failures = (&raw mut (*account).failures).cast::<u64>();
            *failures.add(reason as usize) += 1;
        }
    }
    if let Some(memory) = memory {
        // SAFETY: as above, and the account is this CPU's own.
        unsafe {
            missed_accept(memory, socket);
            closed(memory, socket, account);
            forget(socket, memory);
        }
    } else if wants_memory() {
        live(socket, &key, old, new, account);
    }
    0
}

/// Whether a signal needs something remembered of a socket.
#[inline(always)]
fn wants_memory() -> bool {
    on(&SWITCH_TCP_CONNECT)
        || on(&SWITCH_TCP_ACCEPT)
        || on(&SWITCH_TCP_LIFETIME)
        || on(&SWITCH_TCP_BYTES)
        || on(&SWITCH_TCP_FAILURES)
}

#[inline(always)]
fn live(socket: Typed, key: &TcpKey, old: i32, new: i32, account: *mut Tcp) {
    match new {
        SYN_SENT => begin(socket, remembered(socket), Phase::Connecting, key),
        // Both ends may connect to each other at once: then this one has begun.
        ESTABLISHED => {
            let memory = remembered(socket);
            // SAFETY: the socket's own memory, under the socket's lock; the
            // account is this CPU's own.
            unsafe {
                match memory {
                    Some(memory) if (*memory).phase == Phase::Connecting as u32 => {
                        (*memory).interface = key.interface;
                        connected(memory, account);
                    }
                    _ if old == SYN_RECV => begin(socket, memory, Phase::Queued, key),
                    _ => {}
                }
            }
        }
        FIN_WAIT1 | LAST_ACK => {
            if on(&SWITCH_TCP_ACCEPT)
                && let Some(memory) = remembered(socket)
            {
                // SAFETY: as above.
                unsafe { missed_accept(memory, socket) };
            }
        }
        _ => {}
    }
}

/// What is remembered of another socket at this address, whose close the kernel
/// left out (`recursion_misses`), is overwritten.
#[inline(always)]
fn begin(socket: Typed, stale: Option<*mut Socket>, phase: Phase, key: &TcpKey) {
    let Some(memory) = stale else {
        remember(socket, now(), phase, key.interface);
        return;
    };
    // SAFETY: the socket's own memory, under the socket's lock.
    unsafe {
        (*memory).since = now();
        (*memory).phase = phase as u32;
        (*memory).interface = key.interface;
    }
}

/// # Safety
/// `memory` is the socket's and `account` this CPU's own.
#[inline(always)]
unsafe fn connected(memory: *mut Socket, account: *mut Tcp) {
    let time = now();
    // SAFETY: by contract.
    unsafe {
        if on(&SWITCH_TCP_CONNECT) {
            let connecting = (*memory).since;
            Histogram::record(&raw mut (*account).connect, time - connecting);
        }
        (*memory).since = time;
        (*memory).phase = Phase::Open as u32;
    }
}

/// Counts a connection that somebody holds although the accept probe did not
/// see it leave the queue.
///
/// # Safety
/// `memory` is the socket's.
#[inline(always)]
unsafe fn missed_accept(memory: *mut Socket, socket: Typed) {
    if !on(&SWITCH_TCP_ACCEPT) {
        return;
    }
    // SAFETY: by contract.
    unsafe {
        if (*memory).phase == Phase::Queued as u32
            && socket.get::<usize>(&OFFSET___sock___sk_socket) != 0
        {
            (*memory).phase = Phase::Open as u32;
            lose(Loss::TcpAccept);
        }
    }
}

/// # Safety
/// `memory` is the socket's and `account` this CPU's own.
#[inline(always)]
unsafe fn closed(memory: *mut Socket, socket: Typed, account: *mut Tcp) {
    // SAFETY: by contract.
    unsafe {
        if (*memory).phase == Phase::Connecting as u32 {
            return;
        }
        let established = (*memory).since;
        if on(&SWITCH_TCP_LIFETIME) {
            let lived = now() - established;
            Histogram::record(&raw mut (*account).lifetime, lived);
        }
        if on(&SWITCH_TCP_BYTES)
            && let Some(tcp) = tcp_sock(socket)
        {
            let sent: u64 = tcp.get(&OFFSET___tcp_sock___bytes_sent);
            let again: u64 = tcp.get(&OFFSET___tcp_sock___bytes_retrans);
            let received: u64 = tcp.get(&OFFSET___tcp_sock___bytes_received);
            // `tcp_rcv_nxt_update` counts sequence numbers, and a FIN has one.
            let flags: u64 = socket.get(&OFFSET___sock_____sk_common___skc_flags);
            let fin = u64::from(flags & SOCK_DONE != 0);
            (*account).sent_bytes += sent.wrapping_sub(again);
            (*account).received_bytes += received.saturating_sub(fin);
        }
    }
}
