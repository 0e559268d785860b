//! Every bucket boundary of schema 3 from 1 ns to 1024 s, against exact
//! arithmetic on whole numbers.
//!
//! A duration of `ns` nanoseconds belongs at or below 2^(k/8) s when
//! ns <= 2^(k/8) * 10^9, which is ns^8 <= 2^k * 10^72: no roots, no rounding.

use kldtrace_abi::histogram::{OVERFLOW_SLOT, SLOTS, index_of, slot_of};
use num_bigint::BigUint;
use proptest::prelude::*;

const FIRST: i32 = -239;
const LAST: i32 = 80;

/// 2^k * 10^72, times 2^240 to keep it whole for negative `k`.
fn right(k: i32) -> BigUint {
    BigUint::from(10_u32).pow(72) << u32::try_from(k + 240).unwrap()
}

fn at_or_below(ns: u64, k: i32) -> bool {
    BigUint::from(ns).pow(8) << 240_u32 <= right(k)
}

/// The longest whole number of nanoseconds at or below boundary `k`.
fn boundary(k: i32) -> u64 {
    let root = (right(k) >> 240_u32).nth_root(8);
    u64::try_from(root).unwrap()
}

fn expected_slot(ns: u64) -> usize {
    if ns == 0 {
        return 0;
    }
    let index = (FIRST..=LAST).find(|&k| at_or_below(ns, k));
    index.map_or(OVERFLOW_SLOT, |k| usize::try_from(k + 240).unwrap())
}

#[test]
fn both_sides_of_every_boundary() {
    for k in FIRST..=LAST {
        let last = boundary(k);
        assert!(at_or_below(last, k) && !at_or_below(last + 1, k), "k {k}");
        for ns in [last.saturating_sub(1), last, last + 1] {
            assert_eq!(slot_of(ns), expected_slot(ns), "k {k}, {ns} ns");
        }
    }
}

#[test]
fn slots_are_indices() {
    assert_eq!(index_of(1), FIRST);
    assert_eq!(index_of(SLOTS - 2), LAST);
    // 1 s is 2^(0/8) s, and `le` is inclusive.
    assert_eq!(index_of(slot_of(1_000_000_000)), 0);
    assert_eq!(index_of(slot_of(1_000_000_001)), 1);
    assert_eq!(slot_of(0), 0);
    assert_eq!(slot_of(1_024_000_000_000), SLOTS - 2);
    assert_eq!(slot_of(1_024_000_000_001), OVERFLOW_SLOT);
    assert_eq!(slot_of(u64::MAX), OVERFLOW_SLOT);
}

#[test]
fn every_nanosecond_up_to_a_hundred_microseconds() {
    let mut slot = 1;
    for ns in 1..100_000_u64 {
        while !at_or_below(ns, index_of(slot)) {
            slot += 1;
        }
        assert_eq!(slot_of(ns), slot, "{ns} ns");
    }
}

proptest! {
    #[test]
    fn any_duration(bits in 0_u32..64, seed: u64) {
        let ns = seed >> bits;
        prop_assert_eq!(slot_of(ns), expected_slot(ns));
    }
}
