//! What arrives.

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use kldtrace_abi::plane::{
    Action, Facts, Link, Outcome,
    count::{Told, counter},
    judge, parse,
};

use crate::{
    frame::Frame,
    kernel::{now, on, setting, settings},
    maps::{Maps, PLANE_COUNTS, PLANE_POLICY},
    tell::{tell, tells_all},
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
    let frame = Frame::new(&ctx);
    let link = if on(&PLANE_BARE) {
        Link::Bare
    } else {
        Link::Ethernet
    };
    let facts = parse(&frame, link);
    let plane = setting(&PLANE_NUMBER) as u8;
    let mut maps = Maps { image };
    let outcome = judge(&mut maps, plane, &facts);
    count(plane, &facts, &outcome);
    if !matches!(outcome.action, Action::Pass) || tells_all() {
        tell(&Told {
            at: now(),
            facts,
            outcome,
            interface: ctx.ingress_ifindex() as u32,
            generation: 0,
            plane: plane.into(),
        });
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

#[inline(always)]
fn count(plane: u8, facts: &Facts, outcome: &Outcome) {
    if let Some(count) = PLANE_COUNTS.get_ptr_mut(counter(plane, outcome)) {
        // SAFETY: this CPU's own.
        let count = unsafe { &mut *count };
        count.packets += 1;
        count.bytes += u64::from(facts.length);
    }
}
