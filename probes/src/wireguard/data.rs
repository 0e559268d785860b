//! Data packets that reached a session and were refused.
//!
//! Nothing counts a packet that does not decrypt, and a probe at every packet
//! would cost what a tenth of its decryption does. But packets are handed to
//! the network in batches, one peer's at a time, on one CPU (receive.c:
//! `wg_packet_rx_poll`): the batch says how many packets it has been through,
//! and the interface's own counter on that CPU how many of them were good. The
//! more packets come, the larger the batches.

use aya_ebpf::{
    helpers::bpf_get_smp_processor_id,
    macros::{kprobe, kretprobe, map},
    maps::PerCpuArray,
    programs::{ProbeContext, RetProbeContext},
};
use kldtrace_abi::wireguard::Poll;

use super::{
    account::{account, add},
    peer::{Plain, argument, device_of, net_device, of_napi, peer_key},
};
use crate::kernel::{Object, offsets, setting, settings};

offsets! {
    OFFSET___net_device___tstats
    OFFSET___pcpu_sw_netstats___rx_packets
}

settings! {
    /// Address of the kernel's `__per_cpu_offset`.
    PER_CPU_OFFSET
}

/// The batch that this CPU works on.
#[map]
static POLLS: PerCpuArray<Poll> = PerCpuArray::with_max_entries(1, 0);

/// Packets that a peer's interface has received on this CPU.
#[inline(always)]
fn packets(peer: Plain) -> u64 {
    static START: u64 = 0;
    // SAFETY: the helper only reads a number.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() });
    let offset = Object::<false>((setting(&PER_CPU_OFFSET) + cpu * 8) as *const u8);
    let stats = net_device(device_of(peer)).follow(&OFFSET___net_device___tstats);
    let here = stats.0.wrapping_add(offset.get::<u64>(&START) as usize);
    Object::<false>(here).get(&OFFSET___pcpu_sw_netstats___rx_packets)
}

/// `int wg_packet_rx_poll(struct napi_struct *napi, int budget)`
#[kprobe]
pub fn wg_poll_enter(ctx: ProbeContext) -> u32 {
    let peer = of_napi(argument(&ctx, 0));
    if let Some(poll) = POLLS.get_ptr_mut(0) {
        // SAFETY: this CPU's own value; soft interrupts stay on their CPU.
        unsafe {
            (*poll).peer = peer.0 as u64;
            (*poll).packets = packets(peer);
        }
    }
    0
}

#[kretprobe]
pub fn wg_poll_return(ctx: RetProbeContext) -> u32 {
    let Some(poll) = POLLS.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: as above.
    let (peer, before) = unsafe { ((*poll).peer, (*poll).packets) };
    if peer == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*poll).peer = 0 };
    let peer = Object(peer as *const u8);
    let worked = ctx.ret::<u64>() & 0xffff_ffff;
    let good = packets(peer).wrapping_sub(before);
    if worked > good {
        let account = account(&peer_key(peer));
        if !account.is_null() {
            // SAFETY: a value of the map.
            unsafe { add(&raw mut (*account).refused, worked - good) };
        }
    }
    0
}
