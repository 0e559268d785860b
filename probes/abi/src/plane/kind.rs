//! Whether a source is one of the many that the policy tells nothing apart by.
//!
//! Most of the address space has one [`Leaf`](super::Leaf) in common: no rule
//! asks for it, it is on no list, and it is of no plane, or all of it of the one
//! that has the world. Most of the rest has another in common, often that of a
//! block list. Forged sources are nearly all of these two kinds, each another,
//! and the tries of a large policy are larger than a CPU's own cache. What was
//! decided about one source of a kind holds for all of them ([`super::memo`]).
//!
//! An image has a bit for each *block*, addresses that begin with the same
//! [`BITS`]: 0, if all of the block has the *usual* leaf. There are a page of
//! bits for each [`TOP_BITS`] of an address, and an array that has its number:
//! pages that are alike are there once. Behind, for each 64 blocks, a [`Group`]
//! says of the others which are wholly of the *second* kind, and which are
//! mixed. Of those there are bits again, for each of their 64 [`Parts`].
//!
//! So bits take what the policy has in prefixes: 16 bytes for each block that
//! is mixed, and at most 2.6 MiB for each family.

use super::{
    Cells, Tables,
    facts::Facts,
    image::{Content, Plane, item},
};

/// Bits of an address that tell blocks apart.
pub const BITS: u32 = 22;
/// Bits of an address that tell pages apart.
pub const TOP_BITS: u32 = 12;
/// Bits of an address that tell parts of blocks apart.
pub const PART_BITS: u32 = BITS + 6;

/// Cells with the numbers of pages, 16 bits each.
pub const TOP_CELLS: u32 = (1 << TOP_BITS) / 32;
/// Cells of a page.
pub const PAGE_CELLS: u32 = (1 << (BITS - TOP_BITS)) / 512;
/// Groups of a page.
pub const GROUPS: u32 = 1 << (BITS - TOP_BITS - 6);

/// A source of neither kind, which is told apart from all others.
pub const OWN: u64 = 0;
/// A source with the leaf that most have.
pub const USUAL: u64 = 2;
/// A source with the leaf that most of the others have.
pub const SECOND: u64 = 1;

/// Of 64 blocks with one word of bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Group {
    /// Blocks with parts of several kinds.
    pub mixed: u64,
    /// Blocks that are [`SECOND`].
    pub second: u64,
    /// The number of the first mixed block's [`Parts`], from the image's first
    /// cell on, less 1.
    pub parts: u32,
    /// 0.
    pub reserved: [u32; 3],
}

// SAFETY: integers without padding; 32 bytes.
unsafe impl Content for Group {}

/// The 64 parts of a block.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Parts {
    /// Those that are [`OWN`].
    pub own: u64,
    /// Those that are [`SECOND`].
    pub second: u64,
}

// SAFETY: integers without padding; 16 bytes.
unsafe impl Content for Parts {}

/// [`OWN`], [`USUAL`] or [`SECOND`].
#[inline(always)]
pub fn of<K: Tables>(tables: &mut K, plane: &Plane, facts: &Facts) -> u64 {
    let (pages, groups) = match facts.family.is_v6() {
        0 => (plane.pages[0], plane.groups[0]),
        _ => (plane.pages[1], plane.groups[1]),
    };
    if pages == 0 {
        return OWN;
    }
    let address = facts.source.0;
    let block = (address >> (64 - BITS)) as u32;
    let Some(page) = item::<u16, K>(tables, pages, block >> (BITS - TOP_BITS)) else {
        return OWN;
    };
    let page = u32::from(page);
    let word = (block % (1 << (BITS - TOP_BITS))) / 64;
    let bits = pages.wrapping_add(TOP_CELLS + page * PAGE_CELLS);
    let Some(bits) = item::<u64, K>(tables, bits, word) else {
        return OWN;
    };
    if bits >> (block % 64) & 1 == 0 {
        return USUAL;
    }
    if groups == 0 {
        return OWN;
    }
    tables.kind(groups.wrapping_add(page * GROUPS + word), address)
}

/// The same of a source whose block is not usual, by the number of its group
/// and the first half of its address.
#[inline(always)]
pub fn unusual<K: Cells>(tables: &K, group: u32, address: u64) -> u64 {
    let Some(group) = item::<Group, K>(tables, 0, group) else {
        return OWN;
    };
    let block = address >> (64 - BITS) & 63;
    if group.mixed >> block & 1 == 0 {
        return (group.second >> block & 1) * SECOND;
    }
    // For block 63 the shift leaves nothing, and all bits count.
    let up_to = (2_u64 << block).wrapping_sub(1);
    let number = group.parts.wrapping_add((group.mixed & up_to).count_ones());
    let Some(parts) = item::<Parts, K>(tables, 0, number) else {
        return OWN;
    };
    let part = address >> (64 - PART_BITS) & 63;
    match (parts.own >> part & 1, parts.second >> part & 1) {
        (0, 0) => USUAL,
        (0, _) => SECOND,
        _ => OWN,
    }
}
