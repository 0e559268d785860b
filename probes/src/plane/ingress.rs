//! What arrives.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use kldtrace_abi::plane::{Action, Facts, Outcome, at_once, by_rules, count::counter, refuse};

use crate::{
    frame::Frame,
    interface::{Seen, plane, see},
    maps::{Chunk, Image, Maps, PLANE_COUNTS, PLANE_POLICY},
    tell::{is_due, tell, tells_all},
};

/// Judges a packet. Without a policy all pass: it is there before the program
/// is attached.
#[xdp]
pub fn plane_ingress(ctx: XdpContext) -> u32 {
    let Some(image) = PLANE_POLICY.get(0) else {
        return xdp_action::XDP_PASS;
    };
    let Some(first) = image.get(0) else {
        return xdp_action::XDP_PASS;
    };
    let Some(seen) = see(Frame::arriving(&ctx), 0) else {
        return xdp_action::XDP_PASS;
    };
    let plane = plane();
    let Seen { facts, found, .. } = &mut *seen;
    match at_once(&mut Maps::new(image, first, found), plane, facts) {
        Some(outcome) => seen.outcome = outcome,
        None => judge(image, first, plane, seen),
    }
    if matches!(seen.outcome.action, Action::WouldDrop) {
        keep_out(image, first, plane, seen);
    }
    let Seen { facts, outcome, .. } = seen;
    count(plane, facts, outcome);
    if tells_all() || (!matches!(outcome.action, Action::Pass) && is_due()) {
        tell(first, facts, outcome, ctx.ingress_ifindex() as u32, plane);
    }
    match outcome.action {
        Action::Drop => xdp_action::XDP_DROP,
        Action::Pass | Action::WouldDrop => xdp_action::XDP_PASS,
    }
}

/// An empty program, which the cost of the others is measured against.
#[xdp]
pub fn plane_empty(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Asks the rules: out of line, as most packets need none.
#[inline(never)]
fn judge(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen { facts, found, .. } = seen;
    seen.outcome = by_rules(&mut Maps::new(image, first, found), plane, facts);
}

/// Refuses the flow of what passes in audit mode alone.
#[inline(never)]
fn keep_out(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen { facts, found, .. } = seen;
    // Malformed packets and the like have no flow.
    let _ = refuse(&mut Maps::new(image, first, found), plane, facts);
}

#[inline(always)]
fn count(plane: u8, facts: &Facts, outcome: &Outcome) {
    if let Some(count) = PLANE_COUNTS.get_ptr_mut(counter(plane, outcome)) {
        // SAFETY: this CPU's own.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(facts.length);
    }
}
