//! Whether a source is one of the many that the policy tells nothing apart by,
//! said by one bit.
//!
//! Most of the address space has one [`Leaf`](super::Leaf) in common: no rule
//! asks for it, it is on no list, and it is of no plane, or all of it of the one
//! that has the world. Forged sources are nearly all of that kind, each another,
//! and the tries of a large policy are larger than a CPU's own cache. So an
//! image has a bit for each block of addresses that begin with the same
//! [`BITS`]: 0, if all of the block has the *usual* leaf. What was decided about
//! one such source holds for all of them ([`super::memo`]).
//!
//! There are a page of bits for each [`TOP_BITS`] of an address, and an array
//! that has its number: pages that are alike are there once. So the bits take
//! what the policy has in prefixes, and at most 520 KiB.

use super::{
    Cells,
    facts::{Facts, Family},
    image::{Plane, item},
};

/// Bits of an address that tell blocks apart.
pub const BITS: u32 = 22;
/// Bits of an address that tell pages apart.
pub const TOP_BITS: u32 = 12;

/// Cells with the numbers of pages, 16 bits each.
pub const TOP_CELLS: u32 = (1 << TOP_BITS) / 32;
/// Cells of a page.
pub const PAGE_CELLS: u32 = (1 << (BITS - TOP_BITS)) / 512;

/// 1 if the source of a packet may have another leaf than the usual, 0 if it has
/// not. A number, as for each way of a branch the verifier would look at all
/// that follows.
#[inline(always)]
pub fn unusual<K: Cells>(tables: &K, plane: &Plane, facts: &Facts) -> u64 {
    let [v4, v6] = plane.usual;
    let first = if matches!(facts.family, Family::V6) {
        v6
    } else {
        v4
    };
    let block = (facts.source.0 >> (64 - BITS)) as u32;
    let Some(page) = item::<u16, K>(tables, first, block >> (BITS - TOP_BITS)) else {
        return 1;
    };
    let page = first.wrapping_add(TOP_CELLS + u32::from(page) * PAGE_CELLS);
    let word = (block % (1 << (BITS - TOP_BITS))) / 64;
    match item::<u64, K>(tables, page, word) {
        Some(bits) => bits >> (block % 64) & 1 | u64::from(first == 0),
        None => 1,
    }
}
