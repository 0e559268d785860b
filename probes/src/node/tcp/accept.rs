//! The moment a connection is taken out of the accept queue.
//!
//! The queue itself has no tracepoint. Two ways, the exact one first:
//! - the return of `inet_csk_accept` (net/ipv4/inet_connection_sock.c), which
//!   is the new socket: `(struct sock *sk, struct proto_accept_arg *arg)`
//!   since 6.10, `(struct sock *sk, int flags, int *err, bool kern)` before;
//! - the cgroup hook of `getpeername`, which `accept` and `accept4` run too
//!   when the caller asks for the peer's address (`__sys_accept4`,
//!   net/socket.c). The system call's number tells them from a real
//!   `getpeername`. Who accepts without an address is not seen; the socket's
//!   next change of state finds that out and counts it. The tracepoints of
//!   the system calls would see all, at 23 ns for *every* system call of the
//!   node (docs/journal/2026-11-23-accept.md).

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::bpf_sock_addr,
    helpers::{bpf_get_current_task_btf, bpf_task_pt_regs},
    macros::{cgroup_sock_addr, fexit},
    programs::{FExitContext, SockAddrContext},
};
use kldtrace_abi::{
    histogram::Histogram,
    tcp::{Phase, Socket},
};

use super::{TcpAccounts, labels, sockets::remembered, tcp_sock};
use kldtrace_probes::slots::account;

use crate::kernel::{Object, Typed, now, offsets, on, setting, settings};

offsets! {
    OFFSET___pt_regs___orig_ax
}

settings! {
    /// Whether `inet_csk_accept` has two arguments (6.10) and not four.
    ACCEPT_TAKES_TWO
    /// Number of the system call `accept`.
    SYSCALL_ACCEPT
    /// Number of the system call `accept4`.
    SYSCALL_ACCEPT4
}

/// `inet_csk_accept` returns.
#[fexit(function = "inet_csk_accept")]
pub fn inet_csk_accept(ctx: FExitContext) -> i32 {
    let socket: Typed = if on(&ACCEPT_TAKES_TWO) {
        Object(after_two(ctx.as_ptr()))
    } else {
        Object(after_four(ctx.as_ptr()))
    };
    if !socket.is_null()
        && let Some(memory) = remembered(socket)
    {
        accepted(memory, socket);
    }
    0
}

/// What a function of two arguments returned. Out of line, like its twin: the
/// verifier takes loads at fixed places of the context only, and the compiler
/// would make of both one load at either place.
#[inline(never)]
fn after_two(ctx: *mut c_void) -> *const u8 {
    FExitContext::new(ctx).arg(2)
}

/// What a function of four arguments returned.
#[inline(never)]
fn after_four(ctx: *mut c_void) -> *const u8 {
    FExitContext::new(ctx).arg(4)
}

/// The peer's IPv4 address is asked for.
#[cgroup_sock_addr(getpeername4)]
pub fn accept_getpeername4(ctx: SockAddrContext) -> i32 {
    asked(ctx.sock_addr);
    1
}

/// The peer's IPv6 address is asked for.
#[cgroup_sock_addr(getpeername6)]
pub fn accept_getpeername6(ctx: SockAddrContext) -> i32 {
    asked(ctx.sock_addr);
    1
}

#[inline(always)]
fn asked(address: *mut bpf_sock_addr) {
    // SAFETY: the helpers return the current task and its registers, typed.
    let registers: Typed = unsafe {
        let task = bpf_get_current_task_btf();
        Object((bpf_task_pt_regs(task) as *const u8).cast())
    };
    let call: u64 = registers.get(&OFFSET___pt_regs___orig_ax);
    if call != setting(&SYSCALL_ACCEPT) && call != setting(&SYSCALL_ACCEPT4) {
        return;
    }
    // SAFETY: a context's socket is valid while the program runs.
    let socket = unsafe { (*address).__bindgen_anon_1.sk };
    if socket.is_null() {
        return;
    }
    // The context's socket is a view for such programs; the helper gives the
    // kernel's own, whose fields `labels` reads.
    if let Some(socket) = tcp_sock(Object(socket.cast_const().cast()))
        && let Some(memory) = remembered(socket)
    {
        accepted(memory, socket);
    }
}

#[inline(always)]
fn accepted(memory: *mut Socket, socket: Typed) {
    // SAFETY: the socket's own memory; the account is this CPU's own.
    unsafe {
        if (*memory).phase != Phase::Queued as u32 {
            return;
        }
        (*memory).phase = Phase::Open as u32;
        // Who is established enters the queue.
        let queued = (*memory).since;
        if let Some(account) = account::<TcpAccounts>(&labels(socket)) {
            let waited = now() - queued;
            Histogram::record(&raw mut (*account).accept, waited);
        }
    }
}
