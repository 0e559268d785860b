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

/// Boundaries by the uppermost byte of a number that [`slot_of`] has brought to the top.
///
/// Such a byte has at least four bits behind its leading one, and among numbers that
/// begin with the same five bits is one boundary at most: it is in the upper 40 bits
/// here; where there is none, the last one below. In the lowest six is how many
/// buckets lie below it, from the bucket of 1 in the lowest place of the byte. The
/// bits between decide nothing: what has a bucket has 40 bits.
///
/// Bytes below 16 are there for durations of as many nanoseconds, and for no others.
static BOUNDARIES: [u64; 256] = boundaries();

const fn boundaries() -> [u64; 256] {
    let mut boundaries = [0; 256];
    let mut byte = 1;
    while byte < boundaries.len() {
        let octave = byte.ilog2();
        // Of whole nanoseconds, the byte and nothing behind it; else all that follows.
        let last = if byte < 16 {
            (byte as u64) << 56
        } else {
            ((byte as u64) << 56) + ((1 << 56) - 1)
        };
        let mut boundary = last;
        let mut below = 0;
        while below < MANTISSA.len() && MANTISSA[below] >> (7 - octave) < last {
            boundary = MANTISSA[below] >> (7 - octave);
            below += 1;
        }
        if byte < 16 || below == 0 {
            boundary = last;
        } else {
            below -= 1;
        }
        boundaries[byte] = boundary & !0xff_ffff | (octave as u64 * 8 + below as u64);
        byte += 1;
    }
    boundaries
}

/// Slot for a duration in nanoseconds; exact for every `u64`.
#[inline(always)]
pub const fn slot_of(nanoseconds: u64) -> usize {
    // By how many bits it lies above a byte with at least four bits behind its leading
    // one. Compares, well predicted because durations at one hook cluster: BPF has no
    // instruction that counts leading zeros.
    let shift = if nanoseconds < 1 << 16 {
        if nanoseconds >= 1 << 12 {
            8
        } else if nanoseconds >= 1 << 8 {
            4
        } else {
            // Only here, where few come by.
            if nanoseconds == 0 {
                return 0;
            }
            0
        }
    } else if nanoseconds < 1 << 24 {
        if nanoseconds < 1 << 20 { 12 } else { 16 }
    } else if nanoseconds < 1 << 32 {
        if nanoseconds < 1 << 28 { 20 } else { 24 }
    } else if nanoseconds < 1 << 36 {
        28
    } else if nanoseconds <= 1_024_000_000_000 {
        32
    } else {
        // 2^10 s is the last boundary, below 2^40 ns.
        return OVERFLOW_SLOT;
    };
    let number = nanoseconds << (56 - shift);
    let boundary = BOUNDARIES[(number >> 56) as usize];
    let above = boundary.wrapping_sub(number) >> 63;
    // Octave 0 (1 ns) begins in bucket -239, which is slot 1.
    shift * 8 + ((boundary & 63) + above) as usize + 1
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
        // In bounds, which the verifier sees: each way through `slot_of` leaves it one
        // of 65 slots.
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
