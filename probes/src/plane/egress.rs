//! What leaves: it makes flows, so that answers pass.

use aya_ebpf::{macros::classifier, programs::TcContext};
use kldtrace_abi::plane::{Facts, leaves};

use crate::{
    frame::Frame,
    interface::{plane, see},
    maps::{Chunk, Image, Maps, PLANE_POLICY},
};

/// include/uapi/linux/bpf.h: `TCX_NEXT`; in `TC_ACT_UNSPEC` it has the same
/// number, for kernels before tcx.
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
    if let Some(seen) = see(Frame::leaving(&ctx), 1) {
        note(image, first, plane(), &seen.facts);
    }
    NEXT
}

#[inline(never)]
fn note(image: &'static Image, first: &'static Chunk, plane: u8, facts: &Facts) {
    // Of packets that need no flow there is nothing to note.
    let _ = leaves(&mut Maps { image, first }, plane, facts);
}
