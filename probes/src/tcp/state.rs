//! A connection's life: connecting, failing, queueing, living, closing.
//!
//! `inet_sock_set_state` of include/trace/events/sock.h:
//! `(const struct sock *sk, const int oldstate, const int newstate)`. It
//! fires for SCTP and MPTCP sockets too. In `tcp_set_state` it fires before
//! the state is written; the socket's error is already there.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::btf_tracepoint, programs::BtfTracePointContext};
use kldtrace_abi::{
    histogram::Histogram,
    loss::Loss,
    tcp::{ConnectFailure, STATES, Tcp},
};

use super::{TcpAccounts, labels, remembered, tcp_sock};
use crate::{
    accounts::{account, lose},
    kernel::{Object, Typed, offsets, on, settings},
};

offsets! {
    OFFSET___sock___sk_protocol
    OFFSET___sock___sk_err
    OFFSET___sock___sk_socket
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
}

// include/net/tcp_states.h
const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
const CLOSE: i32 = 7;
const IPPROTO_TCP: u16 = 6;

/// A socket changes its state.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let socket: Typed = Object(ctx.arg(0));
    if socket.get::<u16>(&OFFSET___sock___sk_protocol) != IPPROTO_TCP {
        return 0;
    }
    let (old, new): (i32, i32) = (ctx.arg(1), ctx.arg(2));
    let Some(account) = account::<TcpAccounts>(&labels(socket)) else {
        return 0;
    };
    // SAFETY: this CPU's own account; the index is checked.
    unsafe {
        let index = (new - ESTABLISHED).cast_unsigned() as usize;
        if index < STATES.len() {
            let states = (&raw mut (*account).states).cast::<u64>();
            *states.add(index) += 1;
        }
        if old == SYN_SENT && new == CLOSE {
            let reason = ConnectFailure::from_errno(socket.get(&OFFSET___sock___sk_err));
            let failures = (&raw mut (*account).failures).cast::<u64>();
            *failures.add(reason as usize) += 1;
        }
    }
    remember(socket, old, new, account);
    0
}

#[inline(always)]
fn remember(socket: Typed, old: i32, new: i32, account: *mut Tcp) {
    if !(on(&SWITCH_TCP_CONNECT)
        || on(&SWITCH_TCP_ACCEPT)
        || on(&SWITCH_TCP_LIFETIME)
        || on(&SWITCH_TCP_BYTES))
    {
        return;
    }
    let begins = new == SYN_SENT || (old == SYN_RECV && new == ESTABLISHED);
    let ends = new == CLOSE;
    let Some(memory) = remembered(socket, begins) else {
        if begins {
            lose(Loss::TcpStart);
        }
        return;
    };
    // SAFETY: the socket's own memory, under the socket's lock; the account
    // is this CPU's own.
    unsafe {
        if on(&SWITCH_TCP_ACCEPT) && (*memory).queued != 0 {
            let owner: usize = socket.get(&OFFSET___sock___sk_socket);
            if owner != 0 {
                // Somebody holds it, and the accept probe did not see it go.
                (*memory).queued = 0;
                lose(Loss::TcpAccept);
            }
        }
        if new == SYN_SENT {
            // A socket may connect anew after a failure.
            (*memory).connecting = bpf_ktime_get_ns();
            (*memory).established = 0;
        } else if new == ESTABLISHED {
            let now = bpf_ktime_get_ns();
            (*memory).established = now;
            let connecting = (*memory).connecting;
            if connecting == 0 {
                (*memory).queued = now;
            } else if on(&SWITCH_TCP_CONNECT) {
                Histogram::record(&raw mut (*account).connect, now - connecting);
            }
        } else if ends && (*memory).established != 0 {
            if on(&SWITCH_TCP_LIFETIME) {
                let lived = bpf_ktime_get_ns() - (*memory).established;
                Histogram::record(&raw mut (*account).lifetime, lived);
            }
            (*memory).established = 0;
            (*memory).connecting = 0;
            if on(&SWITCH_TCP_BYTES)
                && let Some(tcp) = tcp_sock(socket)
            {
                let sent: u64 = tcp.get(&OFFSET___tcp_sock___bytes_sent);
                let again: u64 = tcp.get(&OFFSET___tcp_sock___bytes_retrans);
                (*account).sent_bytes += sent.wrapping_sub(again);
                (*account).received_bytes += tcp.get::<u64>(&OFFSET___tcp_sock___bytes_received);
            }
        }
    }
}
