//! TCP: one account for each cgroup, interface and address family.

mod accept;
mod segments;
mod sockets;
mod state;

use aya_ebpf::helpers::bpf_skc_to_tcp_sock;
use kldtrace_abi::{
    loss::Loss,
    tcp::{Tcp, TcpKey},
};

use kldtrace_probes::slots::accounts_at_slots;

use crate::{
    cgroup,
    kernel::{Object, Typed, offsets},
};

offsets! {
    OFFSET___sock_____sk_common___skc_family
    OFFSET___sock___sk_cgrp_data___cgroup
    OFFSET___sock___sk_dst_cache
    OFFSET___dst_entry___dev
    OFFSET___net_device___name
}

accounts_at_slots! {
    TcpAccounts: TcpKey => Tcp, Loss::TcpSeries,
    TCP TCP_SLOTS TCP_FREE TCP_OWNERS TCP_HINTS
}

/// The full TCP socket behind a `struct sock`.
#[inline(always)]
fn tcp_sock(socket: Typed) -> Option<Typed> {
    // SAFETY: the helper checks what kind of socket it is.
    let tcp = unsafe { bpf_skc_to_tcp_sock(socket.0.cast_mut().cast()) };
    (!tcp.is_null()).then_some(Object(tcp.cast_const().cast()))
}

/// The labels of a full socket.
#[inline(always)]
fn labels(socket: Typed) -> TcpKey {
    let device = socket
        .follow(&OFFSET___sock___sk_dst_cache)
        .follow(&OFFSET___dst_entry___dev);
    let family: u16 = socket.get(&OFFSET___sock_____sk_common___skc_family);
    TcpKey {
        cgroup: cgroup::id(socket.follow(&OFFSET___sock___sk_cgrp_data___cgroup)),
        interface: interface(device),
        family: family.into(),
    }
}

/// An interface's name, IFNAMSIZ (16) bytes. The name and not the index: an
/// index says nothing outside its network namespace.
#[inline(always)]
fn interface(device: Typed) -> [u64; 2] {
    let second_half: Typed = Object(device.0.wrapping_add(8));
    [
        device.get(&OFFSET___net_device___name),
        second_half.get(&OFFSET___net_device___name),
    ]
}
