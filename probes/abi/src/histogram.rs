//! The histogram: buckets of Prometheus native histograms, schema 3.
//!
//! A bucket with index `k` holds durations in (2^((k-1)/8) s, 2^(k/8) s]: a
//! factor of 2^(1/8) = 1.0905, so a quantile taken from a bucket's geometric
//! middle is off by at most 4.4 %. Upper bounds are inclusive, as `le` is.
//! <https://prometheus.io/docs/specs/native_histograms/#schema>

/// Prometheus' name for the resolution: 2^3 buckets for each factor of two.
pub const SCHEMA: i32 = 3;

/// Slots of a [`Histogram`]: the zero bucket, 320 buckets, and the overflow.
pub const SLOTS: usize = 322;

/// Index `k` of the bucket behind slot 0, the zero bucket. Its upper bound,
/// 2^-30 s (0.93 ns), is the zero threshold; among whole nanoseconds only 0
/// falls into it.
pub const ZERO_INDEX: i32 = -240;

/// Slot that counts what is longer than 1024 s (2^10 s).
pub const OVERFLOW_SLOT: usize = SLOTS - 1;

/// Bucket boundaries inside one octave of nanoseconds.
///
/// Boundaries are 2^(k/8) s, octaves begin at powers of two of nanoseconds:
/// the boundary's place inside its octave is the same in every octave, so it
/// is kept once, as the whole part of 2^((j-7)/8) * 10^9 * 2^34, which is the
/// boundary normalized to have its leading one in bit 63. A whole number of
/// nanoseconds shifted the same way loses nothing, so comparing with these
/// decides exactly. `tests/boundaries.rs` proves it for every boundary.
const MANTISSA: [u64; 8] = [
    0x81ff_a7a9_549c_a6e3,
    0x8dc3_b896_0164_a7d9,
    0x9a98_6705_4d51_2391,
    0xa896_5f74_bf06_5071,
    0xb7d8_8a12_d0dd_9ea0,
    0xc87c_3e7d_03cd_bec3,
    0xdaa1_7c2c_d195_55db,
    0xee6b_2800_0000_0000,
];

/// Number of the highest bit that is set in a duration below 2 to the power of the
/// sum of these halves, or the return of the slot of 0.
///
/// A tree of compares, each way through which does nothing else. Steps that shift
/// the number where need be are compiled into shifts that are always done and moves
/// of what is wanted of them, at more than twice the instructions.
macro_rules! highest_bit {
    ($number:ident from 0, by) => {{
        // Only here, where few come by.
        if $number == 0 {
            return 0;
        }
        0
    }};
    ($number:ident from $low:tt, by) => { $low };
    ($number:ident from $low:tt, by $half:literal $($halves:literal)*) => {
        if $number >> ($low + $half) == 0 {
            highest_bit!($number from $low, by $($halves)*)
        } else {
            highest_bit!($number from ($low + $half), by $($halves)*)
        }
    };
}

/// Slot for a duration in nanoseconds; exact for every `u64`.
///
/// BPF has no instruction that counts leading zeros, so the octave is found by
/// bisection: six compares, well predicted because durations at one hook
/// cluster. Three or four more find the eighth.
#[inline(always)]
pub const fn slot_of(nanoseconds: u64) -> usize {
    // 2^10 s is the last boundary; it also keeps the bisection at 40 bits.
    if nanoseconds > 1_024_000_000_000 {
        return OVERFLOW_SLOT;
    }
    let octave: usize = highest_bit!(nanoseconds from 0, by 32 16 8 4 2 1);
    let mantissa = nanoseconds << (63 - octave);
    // Written out: an indexed look-up would be a load from a map.
    let eighth = if mantissa <= MANTISSA[3] {
        if mantissa <= MANTISSA[1] {
            if mantissa <= MANTISSA[0] { 0 } else { 1 }
        } else if mantissa <= MANTISSA[2] {
            2
        } else {
            3
        }
    } else if mantissa <= MANTISSA[5] {
        if mantissa <= MANTISSA[4] { 4 } else { 5 }
    } else if mantissa <= MANTISSA[6] {
        6
    } else if mantissa <= MANTISSA[7] {
        7
    } else {
        8
    };
    // Octave 0 (1 ns) begins in bucket -239, which is slot 1.
    octave * 8 + eighth + 1
}

/// Index `k` of a slot's bucket: its upper bound is 2^(k/8) s.
#[inline]
pub const fn index_of(slot: usize) -> i32 {
    // A slot is at most 321.
    slot as u16 as i32 + ZERO_INDEX
}

/// One histogram of durations, as it lies in a map.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Histogram {
    /// Exact sum of all durations, in nanoseconds.
    pub sum: u64,
    /// Observations by slot; see [`slot_of`].
    pub slots: [u64; SLOTS],
}

impl Histogram {
    /// A histogram without observations.
    pub const EMPTY: Self = Self {
        sum: 0,
        slots: [0; SLOTS],
    };

    /// Adds another histogram's observations.
    pub fn add(&mut self, other: &Self) {
        self.sum = self.sum.wrapping_add(other.sum);
        for (slot, more) in self.slots.iter_mut().zip(&other.slots) {
            *slot = slot.wrapping_add(*more);
        }
    }

    /// Adds one duration. In a probe, `this` is a map value of this CPU.
    ///
    /// # Safety
    /// `this` points to a histogram that nobody else writes meanwhile.
    #[inline(always)]
    pub unsafe fn record(this: *mut Self, nanoseconds: u64) {
        // In bounds, which the verifier sees: on each way through the tree of
        // compares it is one number.
        let slot = slot_of(nanoseconds);
        // SAFETY: in bounds; exclusive by contract.
        unsafe {
            let counter = (&raw mut (*this).slots).cast::<u64>().add(slot);
            *counter += 1;
            (*this).sum += nanoseconds;
        }
    }

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.slots.iter().sum()
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::EMPTY
    }
}
