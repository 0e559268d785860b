//! Looks at every peer of an interface whose statistics are read.
//!
//! The peers' counters can be had by generic netlink, but its answer always
//! contains the private key of the interface and the preshared keys
//! (drivers/net/wireguard/netlink.c: `wg_get_device_dump`, `get_peer`). So
//! user space reads /proc/net/dev instead: that takes no capability, names
//! nothing secret, and passes here for each interface.
//!
//! Each peer has a NAPI of its own in the list of its interface (peer.c:
//! `wg_peer_create`). The list is made for readers under RCU, which both
//! /proc/net/dev and rtnetlink are (net/core/net-procfs.c: `dev_seq_start`),
//! and a peer is freed after a grace period (peer.c: `kref_release`).

use aya_ebpf::{
    macros::{kprobe, map},
    maps::HashMap,
    programs::ProbeContext,
};
use kldtrace_abi::{loss::Loss, wireguard::Seen};

use super::peer::{Plain, argument, bytes, container, of_napi, peer_key};
use crate::{
    accounts::lose,
    kernel::{now, offsets},
};

offsets! {
    OFFSET___net_device___rtnl_link_ops
    OFFSET___net_device___napi_list
    OFFSET___net_device___nd_net___net
    OFFSET___net___ns___inum
    OFFSET___rtnl_link_ops___kind
    OFFSET___list_head___next
    OFFSET___napi_struct___dev_list
    OFFSET___wg_peer___walltime_last_handshake___tv_sec
    OFFSET___wg_peer___walltime_last_handshake___tv_nsec
}

/// Peers as the kernel has them, by the address of their `struct wg_peer`.
#[map]
static WIREGUARD_PEERS: HashMap<u64, Seen> = HashMap::with_max_entries(1, 0);

/// Peers of one interface that are looked at.
const MOST: usize = 1024;

/// Whether it is an interface of this module: the kind that
/// `ip link add type` takes.
#[inline(always)]
fn is_wireguard(device: Plain) -> bool {
    static START: u64 = 0;
    static REST: u64 = 8;
    let kind = device
        .follow(&OFFSET___net_device___rtnl_link_ops)
        .follow(&OFFSET___rtnl_link_ops___kind);
    !kind.is_null()
        && kind.get::<u64>(&START) == u64::from_ne_bytes(*b"wireguar")
        && kind.get::<u16>(&REST) == u16::from_ne_bytes(*b"d\0")
}

/// `struct rtnl_link_stats64 *dev_get_stats(struct net_device *dev, struct
/// rtnl_link_stats64 *storage)` of net/core/dev.c
#[kprobe]
pub fn wg_peers(ctx: ProbeContext) -> u32 {
    let device = argument(&ctx, 0);
    if !is_wireguard(device) {
        return 0;
    }
    let at = now();
    let namespace = device
        .follow(&OFFSET___net_device___nd_net___net)
        .get::<u32>(&OFFSET___net___ns___inum);
    let head = device.part(&OFFSET___net_device___napi_list);
    let mut entry = head.follow(&OFFSET___list_head___next);
    let mut without_room = 0;
    for _ in 0..MOST {
        if entry.0 == head.0 {
            break;
        }
        let napi = container(entry, &OFFSET___napi_struct___dev_list);
        without_room |= see(of_napi(napi), at, namespace.into());
        entry = entry.follow(&OFFSET___list_head___next);
    }
    // Once: inside the loop it would be too much for the verifier.
    if without_room != 0 || entry.0 != head.0 {
        lose(Loss::WireguardPeer);
    }
    0
}

/// Takes down a peer; not 0: there is no room.
#[inline(always)]
fn see(peer: Plain, at: u64, namespace: u64) -> i32 {
    let seconds: u64 = peer.get(&OFFSET___wg_peer___walltime_last_handshake___tv_sec);
    let nanoseconds: u64 = peer.get(&OFFSET___wg_peer___walltime_last_handshake___tv_nsec);
    let (received_bytes, sent_bytes) = bytes(peer);
    let seen = Seen {
        key: peer_key(peer),
        at,
        namespace,
        received_bytes,
        sent_bytes,
        last_handshake: seconds
            .wrapping_mul(1_000_000_000)
            .wrapping_add(nanoseconds),
    };
    WIREGUARD_PEERS
        .insert(peer.0 as u64, seen, 0)
        .err()
        .unwrap_or(0)
}
