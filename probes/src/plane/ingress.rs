//! What arrives.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use kldtrace_abi::plane::{
    Action, Facts, Outcome, at_once, by_rules, charge, count::counter, learn, recalled, refuse,
};

use crate::{
    frame::Frame,
    interface::{Seen, plane, see},
    maps::{Chunk, Image, Maps, PLANE_COUNTS, PLANE_POLICY, value},
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
    let Seen {
        facts,
        found,
        outcome,
        ..
    } = &mut *seen;
    if !recalled(&mut Maps::new(image, first, found), plane, facts, outcome)
        && ask(image, first, plane, seen) == 0
    {
        judge(image, first, plane, seen);
        keep(image, first, plane, seen);
    }
    if seen.outcome.limited != 0 {
        limit(image, first, plane, seen);
    }
    if matches!(seen.outcome.action, Action::WouldDrop) {
        keep_out(image, first, plane, seen);
    }
    let Seen {
        facts,
        outcome,
        budget,
        ..
    } = seen;
    count(plane, facts, outcome);
    if tells_all() || (!matches!(outcome.action, Action::Pass) && is_due(budget)) {
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

// Each step is out of line, as most packets need none, and the kernel gives a
// program and all that it calls 512 bytes of stack together.

/// Asks the flows; 0: they do not know.
#[inline(never)]
fn ask(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) -> u64 {
    let Seen {
        facts,
        found,
        outcome,
        ..
    } = seen;
    at_once(&mut Maps::new(image, first, found), plane, facts, outcome).into()
}

/// Asks the rules.
#[inline(never)]
fn judge(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen { facts, found, .. } = seen;
    seen.outcome = by_rules(&mut Maps::new(image, first, found), plane, facts);
}

/// Keeps what the rules said.
#[inline(never)]
fn keep(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen {
        facts,
        found,
        outcome,
        ..
    } = seen;
    // Without an image there is nothing to keep.
    let _ = learn(&mut Maps::new(image, first, found), plane, facts, *outcome);
}

/// Drops what is over a rate.
#[inline(never)]
fn limit(image: &'static Image, first: &'static Chunk, plane: u8, seen: &mut Seen) {
    let Seen {
        facts,
        found,
        outcome,
        ..
    } = seen;
    *outcome = charge(&mut Maps::new(image, first, found), plane, facts, *outcome);
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
    if let Some(count) = value(&PLANE_COUNTS, counter(plane, outcome)) {
        // SAFETY: this CPU's own.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(facts.length);
    }
}
