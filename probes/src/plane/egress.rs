//! What leaves: it makes flows, so that answers pass.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kldtrace_abi::plane::{
    Outcome,
    leave::{keep, unknown},
    unlimited,
};

use crate::{
    frame::Frame,
    interface::{Seen, plane, see},
    maps::{Chunk, Image, Maps, PLANE_POLICY},
};

/// include/uapi/linux/bpf.h: `TCX_NEXT`; `TC_ACT_UNSPEC` has the same number,
/// for kernels before tcx.
const NEXT: i32 = -1;

/// Notes a packet, and lets whoever is next decide about it.
#[classifier]
pub fn plane_egress(ctx: TcContext) -> i32 {
    let Some(image) = PLANE_POLICY.get(0) else {
        return NEXT;
    };
    let Some(first) = image.get(0) else {
        return NEXT;
    };
    let Some(seen) = see(Frame::leaving(&ctx), 1) else {
        return NEXT;
    };
    seen.facts = seen.facts.turned();
    let plane = plane();
    look_up(image, first, plane, seen);
    if seen.flow != KNOWN {
        ask(image, first, plane, seen);
        store(image, first, plane, seen);
    }
    NEXT
}

// In a map's memory, as what is found ([`crate::maps`]).

/// Nothing is to be done.
const KNOWN: u32 = 0;
/// The flow is new.
const NEW: u32 = 1;
/// The flow was another policy's.
const OTHERS: u32 = 2;

// Each step is out of line: the kernel gives a program and all that it calls
// 512 bytes of stack together.

#[inline(never)]
fn look_up(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen { facts, found, .. } = seen;
    seen.flow = match unknown(&mut Maps::new(image, first, found), plane, facts) {
        None => KNOWN,
        Some(false) => NEW,
        Some(true) => OTHERS,
    };
}

#[inline(never)]
fn ask(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen { facts, found, .. } = seen;
    seen.outcome = Outcome::default();
    if let Some(outcome) = unlimited(&mut Maps::new(image, first, found), plane, facts) {
        seen.outcome = outcome;
    }
}

#[inline(never)]
fn store(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen {
        facts,
        found,
        outcome,
        flow,
        ..
    } = seen;
    let mut maps = Maps::new(image, first, found);
    // Of packets that need no flow there is nothing to keep.
    let _ = keep(&mut maps, plane, facts, *flow == OTHERS, *outcome);
}
