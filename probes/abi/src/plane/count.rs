//! What the planes' programs count, and what they tell.

use core::ops::Range;

use super::{
    Facts,
    image::PLANES,
    outcome::{Action, Outcome, Reason},
};

/// Packets and their bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of them, from the first that the program sees.
    pub bytes: u64,
}

/// Counters of planes: by plane, reason and action.
const PLANE_COUNTERS: u32 = (PLANES as u32 + 1) * 64;
/// Counters of each rule: passed, dropped, would be dropped, over its rate.
const RULE_COUNTERS: u32 = 4;

/// Counters that so many rules need.
pub const fn counters(rules: u32) -> u32 {
    PLANE_COUNTERS + (rules + 1) * RULE_COUNTERS
}

/// Counters of a plane without those of its rules.
pub const fn plane_counters(plane: u8) -> Range<u32> {
    let first = (plane as u32 & 15) << 6;
    first..first + 64
}

/// Counters of a rule: passed, dropped, would be dropped, over its rate.
pub const fn rule_counters(counter: u32) -> Range<u32> {
    let first = PLANE_COUNTERS + counter * RULE_COUNTERS;
    first..first + RULE_COUNTERS
}

/// Where a packet is counted. One place each: what a plane has done in all is
/// the sum of its own and its rules' counters.
#[inline(always)]
pub const fn counter(plane: u8, outcome: &Outcome) -> u32 {
    if outcome.counter == 0 {
        return (plane as u32 & 15) << 6
            | (outcome.reason as u32 & 15) << 2
            | outcome.action as u32;
    }
    let kind = match (outcome.reason, outcome.action) {
        (Reason::Rate, _) => 3,
        (_, Action::Pass) => 0,
        (_, Action::Drop) => 1,
        (_, Action::WouldDrop) => 2,
    };
    PLANE_COUNTERS + outcome.counter * RULE_COUNTERS + kind
}

/// A packet, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// When, by `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The packet.
    pub facts: Facts,
    /// The verdict.
    pub outcome: Outcome,
    /// The index of the interface.
    pub interface: u32,
    /// The policy, by its generation.
    pub generation: u32,
    /// The plane.
    pub plane: u32,
}

/// Drops that each CPU tells of in a second; the rest are counted.
pub const TOLD_PER_SECOND: u64 = 50;
