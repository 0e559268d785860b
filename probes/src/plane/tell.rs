//! Packets as events: drops, so many a second, or all.

use kldtrace_abi::{
    loss::Loss,
    plane::{
        Facts, Outcome,
        count::{TOLD_PER_SECOND, Told},
        image::Header,
    },
};

use crate::{
    accounts::{lose, lose_quietly},
    kernel::{now, on, settings},
    maps::{Chunk, PLANE_TOLD, jiffies, tick},
};

settings! {
    /// Every packet is told of, whatever becomes of it.
    PLANE_TELL_ALL
}

/// What was told in this second.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Budget {
    /// The second, of 2^30 ns: a shift, not a division.
    second: u64,
    /// Packets.
    packets: u64,
    /// The tick (jiffy) in which there was nothing left: until the next one
    /// nobody asks a clock.
    spent: u64,
}

/// Whether every packet is told of.
#[inline(always)]
pub fn tells_all() -> bool {
    on(&PLANE_TELL_ALL)
}

/// Whether a packet is to be told of: under a flood most are not, and cost no
/// more than this. Which are not is counted.
#[inline(always)]
pub fn is_due(budget: &mut Budget) -> bool {
    let now = jiffies();
    if budget.spent != now {
        let second = tick() >> 30;
        if budget.second != second {
            budget.second = second;
            budget.packets = 0;
        }
        if budget.packets < TOLD_PER_SECOND {
            budget.packets += 1;
            return true;
        }
        budget.spent = now;
    }
    lose_quietly(Loss::PlaneEvent);
    false
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
