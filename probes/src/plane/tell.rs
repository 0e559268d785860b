//! Packets as events: drops, so many a second, or all.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use kldtrace_abi::{
    loss::Loss,
    plane::{
        Facts, Outcome,
        count::{TOLD_PER_SECOND, Told},
        image::Header,
    },
    wireguard::Budget,
};

use crate::{
    accounts::lose,
    kernel::{now, on, settings},
    maps::{Chunk, PLANE_TOLD, tick},
};

settings! {
    /// Every packet is told of, whatever becomes of it.
    PLANE_TELL_ALL
}

/// What was told in this second.
#[btf_map]
static PLANE_BUDGET: PerCpuArray<Budget, 1> = PerCpuArray::new();

/// Whether every packet is told of.
#[inline(always)]
pub fn tells_all() -> bool {
    on(&PLANE_TELL_ALL)
}

/// Whether a packet is to be told of: under a flood most are not, and cost no
/// more than this.
#[inline(always)]
pub fn is_due() -> bool {
    tells_all() || within_budget()
}

/// Tells of a packet.
#[inline(never)]
pub fn tell(image: &Chunk, facts: &Facts, outcome: &Outcome, interface: u32, plane: u8) {
    let Some(mut entry) = PLANE_TOLD.reserve(0) else {
        lose(Loss::Event);
        return;
    };
    entry.write(Told {
        at: now(),
        facts: *facts,
        outcome: *outcome,
        interface,
        generation: image[0].at::<Header>(0).generation,
        plane: plane.into(),
    });
    entry.submit(0);
}

#[inline(always)]
fn within_budget() -> bool {
    let Some(budget) = PLANE_BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // Seconds of 2^30 ns: a shift, not a division.
    let second = tick() >> 30;
    // SAFETY: this CPU's own.
    let budget = unsafe { &mut *budget };
    if budget.second != second {
        *budget = Budget { second, events: 0 };
    }
    budget.events += 1;
    if budget.events <= TOLD_PER_SECOND {
        return true;
    }
    lose(Loss::PlaneEvent);
    false
}
