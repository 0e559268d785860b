//! Packets as events: drops, so many a second, or all.

use aya_ebpf::{btf_maps::PerCpuArray, macros::btf_map};
use kldtrace_abi::{
    loss::Loss,
    plane::count::{TOLD_PER_SECOND, Told},
    wireguard::Budget,
};

use crate::{
    accounts::lose,
    kernel::{on, settings},
    maps::{PLANE_TOLD, tick},
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
pub fn tell(told: &Told) {
    if PLANE_TOLD.output(told, 0).is_err() {
        lose(Loss::Event);
    }
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
    budget.events <= TOLD_PER_SECOND
}
