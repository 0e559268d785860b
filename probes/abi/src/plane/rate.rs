//! Rates by source: one number a source, by the generic cell rate algorithm
//! (ITU-T I.371, annex A), which does what a token bucket does and needs no
//! refilling.

use super::{facts::Facts, image::PLANES};

/// How many packets may come.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Rate {
    /// Nanoseconds from one packet to the next in the long run; 0: no limit.
    pub interval: u64,
    /// Nanoseconds that packets may be early together: the burst, less one,
    /// times the interval.
    pub early: u64,
}

impl Rate {
    /// Whether there is a limit.
    #[inline(always)]
    pub const fn limits(self) -> bool {
        self.interval != 0
    }
}

/// What a bucket is of.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BucketKey {
    /// The source: of IPv4 all of the address, of IPv6 its first 64 bits, as
    /// one host has as many addresses there as it likes.
    pub source: u64,
    /// Whose rate: a plane's number, or [`PLANES`] + 1 and more, the counter
    /// of a rule; on top the [`super::Family`], and below it 1 for a plane's
    /// rate of SYNs.
    pub of: u64,
}

impl BucketKey {
    #[inline(always)]
    const fn new(facts: &Facts, of: u64) -> Self {
        Self {
            source: facts.source.0,
            of: (facts.family as u64) << 56 | of,
        }
    }

    /// The key for a plane's own rate.
    #[inline(always)]
    pub const fn plane(facts: &Facts, plane: u8) -> Self {
        Self::new(facts, plane as u64)
    }

    /// The key for a plane's rate of SYNs.
    #[inline(always)]
    pub const fn syn(facts: &Facts, plane: u8) -> Self {
        Self::new(facts, 1 << 48 | plane as u64)
    }

    /// The key for a rule's rate: by its counter, which stays the rule's own
    /// when a policy is replaced.
    #[inline(always)]
    pub const fn rule(facts: &Facts, counter: u32) -> Self {
        Self::new(facts, PLANES as u64 + 1 + counter as u64)
    }
}

/// What a source has used.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// When its next packet is due, by `CLOCK_MONOTONIC` in nanoseconds.
    pub due: u64,
}

impl Bucket {
    /// Takes a packet, if the rate allows it. Two CPUs that take at once may
    /// take one for two: the error is one packet, in the sender's favour.
    #[inline(always)]
    pub fn take(&mut self, rate: Rate, now: u64) -> bool {
        let due = self.due;
        if due > now.saturating_add(rate.early) {
            return false;
        }
        let from = if due > now { due } else { now };
        self.due = from.saturating_add(rate.interval);
        true
    }
}
