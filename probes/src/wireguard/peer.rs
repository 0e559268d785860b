//! What is read of `struct wg_peer`, `struct wg_device` and their relatives
//! (drivers/net/wireguard/peer.h, device.h, noise.h). Nothing of it is secret.

use aya_ebpf::{helpers::bpf_ktime_get_boot_ns, programs::ProbeContext};
use kldtrace_abi::wireguard::{Address, PeerKey, Why};

use crate::kernel::{Object, offsets};

offsets! {
    OFFSET___wg_device___dev
    OFFSET___wg_peer___device
    OFFSET___wg_peer___endpoint
    OFFSET___wg_peer___handshake
    OFFSET___wg_peer___napi
    OFFSET___wg_peer___rx_bytes
    OFFSET___wg_peer___tx_bytes
    OFFSET___wg_peer___handshake___remote_static
    OFFSET___wg_peer___keypairs___current_keypair
    OFFSET___noise_keypair___sending___birthdate
    OFFSET___net_device___name
}

/// Untyped: probes at functions get plain numbers for arguments.
pub type Plain = Object<false>;

/// An argument that is a pointer.
#[inline(always)]
pub fn argument(ctx: &ProbeContext, number: usize) -> Plain {
    Object(ctx.arg::<u64>(number).unwrap_or_default() as *const u8)
}

/// The object that this one lies in, at an offset.
#[inline(always)]
pub fn container(part: Plain, offset: &'static u64) -> Plain {
    Object(part.0.wrapping_sub(crate::kernel::setting(offset) as usize))
}

/// The `struct net_device` of a `struct wg_device`.
#[inline(always)]
pub fn net_device(device: Plain) -> Plain {
    device.follow(&OFFSET___wg_device___dev)
}

/// The labels of what has no known peer.
#[inline(always)]
pub fn device_key(device: Plain) -> PeerKey {
    PeerKey {
        interface: net_device(device).get(&OFFSET___net_device___name),
        peer: [0; 4],
    }
}

/// A peer's `struct wg_device`.
#[inline(always)]
pub fn device_of(peer: Plain) -> Plain {
    peer.follow(&OFFSET___wg_peer___device)
}

/// A peer's labels.
#[inline(always)]
pub fn peer_key(peer: Plain) -> PeerKey {
    let mut key = device_key(device_of(peer));
    key.peer = peer.get(&OFFSET___wg_peer___handshake___remote_static);
    key
}

/// A peer's `struct noise_handshake`.
#[inline(always)]
pub fn handshake(peer: Plain) -> Plain {
    peer.part(&OFFSET___wg_peer___handshake)
}

/// The peer of a `struct napi_struct`.
#[inline(always)]
pub fn of_napi(napi: Plain) -> Plain {
    container(napi, &OFFSET___wg_peer___napi)
}

/// Bytes received from and sent to a peer: the kernel's own counters.
#[inline(always)]
pub fn bytes(peer: Plain) -> (u64, u64) {
    (
        peer.get(&OFFSET___wg_peer___rx_bytes),
        peer.get(&OFFSET___wg_peer___tx_bytes),
    )
}

/// A peer's address on the underlay: `struct sockaddr_in` or `sockaddr_in6`,
/// which user space knows as well (include/uapi/linux/in.h, in6.h).
#[inline(always)]
pub fn endpoint(peer: Plain) -> Address {
    static FAMILY: u64 = 0;
    static PORT: u64 = 2;
    static ADDRESS4: u64 = 4;
    static ADDRESS6: u64 = 8;
    let sockaddr = peer.part(&OFFSET___wg_peer___endpoint);
    let mut address = Address {
        family: u32::from(sockaddr.get::<u16>(&FAMILY)),
        port: u32::from(u16::from_be(sockaddr.get(&PORT))),
        bytes: [0; 2],
    };
    if address.family == AF_INET6 {
        address.bytes = sockaddr.get(&ADDRESS6);
    } else {
        address.bytes[0] = u64::from(sockaddr.get::<u32>(&ADDRESS4));
    }
    address
}

/// `AF_INET`.
pub const AF_INET: u32 = 2;
/// `AF_INET6`.
pub const AF_INET6: u32 = 10;

/// Why a handshake with a peer begins now. Sessions have their age by the
/// coarse boot time (noise.c: `derive_keys`).
#[inline(always)]
pub fn why(peer: Plain) -> Why {
    let keypair = peer.follow(&OFFSET___wg_peer___keypairs___current_keypair);
    if keypair.is_null() {
        return Why::New;
    }
    let born: u64 = keypair.get(&OFFSET___noise_keypair___sending___birthdate);
    // SAFETY: the helper only reads a clock.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    Why::from_age(now.saturating_sub(born))
}
