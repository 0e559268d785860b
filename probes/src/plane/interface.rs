//! The interface that the object is loaded for, and its packets.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use kldtrace_abi::plane::{Facts, Link, Outcome, Packet as _, read};

use crate::{
    frame::{Frame, opaque},
    kernel::{on, setting, settings},
    tell::Budget,
};

settings! {
    /// The number of this interface's plane.
    PLANE_NUMBER
    /// Its packets begin with a header of IP, not of Ethernet.
    PLANE_BARE
}

/// The number of its plane.
#[inline(always)]
pub fn plane() -> u8 {
    setting(&PLANE_NUMBER) as u8
}

/// A packet under way, and its verdict.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Seen {
    /// The packet.
    pub facts: Facts,
    /// What becomes of it.
    pub outcome: Outcome,
    /// What a packet that leaves found of its flow.
    pub flow: u32,
    /// Where something that was found is put.
    pub found: u64,
    /// What was told in this second.
    pub budget: Budget,
}

/// The packet under way in each direction. On the stack the verifier would
/// know each constant that the parser wrote, and look at the rules once for
/// each way through the parser; of a map's memory it knows nothing.
///
/// Programs of one direction do not interrupt each other on a CPU: they run
/// with bottom halves off.
#[btf_map]
static PLANE_SEEN: PerCpuArray<Seen, 2> = PerCpuArray::new();

/// Reads a packet that goes in direction 0 (in) or 1 (out).
#[inline(always)]
pub fn see(frame: Frame, direction: u32) -> Option<&'static mut Seen> {
    let seen = PLANE_SEEN.get_ptr_mut(direction)?;
    // SAFETY: this CPU's own, and one program at a time has it.
    let seen = unsafe { &mut *seen };
    // SAFETY: it is 0.
    seen.facts = unsafe { Facts::zeros(opaque(0) as u64) };
    seen.facts.length = frame.length() as u32;
    let link = if on(&PLANE_BARE) {
        Link::Bare
    } else {
        Link::Ethernet
    };
    parse(frame, link, &mut seen.facts);
    Some(seen)
}

/// Out of line, as are the rules: inlined, the compiler follows each way
/// through the parser on through the verdict in copies of the code.
#[inline(never)]
fn parse(frame: Frame, link: Link, facts: &mut Facts) {
    read(&frame, link, facts);
}
