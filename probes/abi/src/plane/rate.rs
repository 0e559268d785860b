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
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct BucketKey {
    /// The source: of IPv4 all of the address, of IPv6 its first 64 bits, as
    /// one host has as many addresses there as it likes.
    source: u64,
    /// Whose rate: a plane's number, or [`PLANES`] + 1 and more, the counter
    /// of a rule; on top the [`super::Family`], and below it 1 for a plane's
    /// rate of SYNs.
    of: u64,
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

    /// Its mark, which tells it from others of its set, and its set, less than
    /// [`SETS`]. Who can choose sources that have a mark in common can as well
    /// send as the other.
    #[inline(always)]
    pub const fn mark(self) -> (u64, u32) {
        let mixed = self.source ^ self.of.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
        // No mark is 0, as that of a bucket that was never used.
        (mixed | 1, (mixed >> (64 - SETS.trailing_zeros())) as u32)
    }
}

/// Buckets in a [`Set`].
pub const WAYS: usize = 4;
/// Sets: 131,072 buckets, 2 MiB.
pub const SETS: u32 = 1 << 15;

/// What a source has used.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Bucket {
    /// Whose it is; 0: nobody's.
    mark: u64,
    /// When its next packet is due, by `CLOCK_MONOTONIC` in nanoseconds. Once
    /// that is over the bucket says no more than a new one.
    due: u64,
}

/// The buckets that a source's may be one of. 64 bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Set([Bucket; WAYS]);

/// What became of a packet that counts against a rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It may come.
    Within,
    /// The same, and a bucket that said something gave way: its source begins
    /// anew.
    Crowded,
    /// It is too much.
    Over,
}

impl Set {
    /// Takes a packet, if the rate allows it. Two CPUs that take at once may
    /// take one for two: the error is one packet, in the sender's favour. Where
    /// two give one bucket to two sources at once, one of these begins with what
    /// the other has used, which is one packet.
    #[inline(always)]
    pub fn take(&mut self, mark: u64, rate: Rate, now: u64) -> Taken {
        let Self(buckets) = self;
        // Its own, or the one that says least: that is due first.
        let mut place = 0;
        let mut least = u64::MAX;
        let mut own = false;
        for (number, bucket) in buckets.iter().enumerate() {
            let due = bucket.due;
            if bucket.mark == mark {
                place = number;
                least = due;
                own = true;
                break;
            }
            if due < least {
                place = number;
                least = due;
            }
        }
        let due = if own && least > now { least } else { now };
        if due > now.saturating_add(rate.early) {
            return Taken::Over;
        }
        let due = due.saturating_add(rate.interval);
        buckets[place % WAYS] = Bucket { mark, due };
        if !own && least > now {
            Taken::Crowded
        } else {
            Taken::Within
        }
    }
}
