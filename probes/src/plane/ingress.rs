//! What arrives.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use kldtrace_abi::plane::{
    Action, Facts, Link, Outcome, Packet as _, at_once, by_rules, count::counter, read,
};

use crate::{
    frame::{Frame, opaque},
    kernel::{on, setting, settings},
    maps::{Chunk, Image, Maps, PLANE_COUNTS, PLANE_POLICY},
    tell::{is_due, tell, tells_all},
};

settings! {
    /// The number of this interface's plane.
    PLANE_NUMBER
    /// Its packets begin with a header of IP, not of Ethernet.
    PLANE_BARE
}

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
    let frame = Frame::new(&ctx);
    let link = if on(&PLANE_BARE) {
        Link::Bare
    } else {
        Link::Ethernet
    };
    // SAFETY: it is 0.
    let mut facts = unsafe { Facts::zeros(opaque(0) as u64) };
    facts.length = frame.length() as u32;
    parse(frame, link, &mut facts);
    let plane = setting(&PLANE_NUMBER) as u8;
    let mut maps = Maps { image, first };
    let outcome = match at_once(&mut maps, plane, &facts) {
        Some(outcome) => outcome,
        None => {
            let mut outcome = Outcome::default();
            judge(image, first, plane, &facts, &mut outcome);
            outcome
        }
    };
    count(plane, &facts, &outcome);
    if tells_all() || (!matches!(outcome.action, Action::Pass) && is_due()) {
        tell(first, &facts, &outcome, ctx.ingress_ifindex() as u32, plane);
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

/// Reads the packet. Out of line, as are the rules: inlined, the compiler
/// follows each way through the parser on through the verdict in copies of the
/// code, and the verifier has to look at all of them.
#[inline(never)]
fn parse(frame: Frame, link: Link, facts: &mut Facts) {
    read(&frame, link, facts);
}

/// Asks the rules.
#[inline(never)]
fn judge(
    image: &'static Image,
    first: &'static Chunk,
    plane: u8,
    facts: &Facts,
    outcome: &mut Outcome,
) {
    *outcome = by_rules(&mut Maps { image, first }, plane, facts);
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
