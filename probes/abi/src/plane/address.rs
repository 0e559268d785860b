//! From an address to its class: a trie of 14 bits and then 6 at each step.
//!
//! After poptrie (Asai and Ohara, SIGCOMM 2015): a node has 64 slots in two
//! bit maps, and what the slots lead to lies packed; the place is a count of
//! bits. Added is a jump over bits in which all that lies below agrees, so that
//! a lonely /128 costs no nineteen steps. 14 + 3 * 6 = 32 and 14 + 19 * 6 =
//! 128: both families come out even.

use super::{
    Cells,
    image::{Content, Header, item},
};

/// Bits that the root is indexed by.
pub const ROOT_BITS: u32 = 14;
/// Bits at each node.
pub const STEP: u32 = 6;
/// Most bits that a node jumps over.
pub const JUMP: u32 = 54;
/// Cells of a root.
pub const ROOT_CELLS: u32 = (1 << ROOT_BITS) / 16;
/// Steps behind the root: (128 - [`ROOT_BITS`]) / [`STEP`].
const STEPS: usize = 19;

/// An address, its first bit on top: that of IPv4 is the top 32 bits of the
/// first number.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Address(pub u64, pub u64);

impl Address {
    /// One of IPv4, in the order of the wire.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self((u32::from_be_bytes(bytes) as u64) << 32, 0)
    }

    /// One of IPv6, in the order of the wire.
    #[inline(always)]
    pub const fn v6(first: [u8; 8], last: [u8; 8]) -> Self {
        Self(u64::from_be_bytes(first), u64::from_be_bytes(last))
    }

    /// Whether it is `::ffff:0:0/96`, which stands for one of IPv4 (RFC 4291,
    /// 2.5.5.2).
    #[inline(always)]
    pub const fn is_mapped(self) -> bool {
        self.0 == 0 && self.1 >> 32 == 0xffff
    }

    /// The first bits as a number; at most 63 of them.
    #[inline(always)]
    const fn first(self, bits: u32) -> u64 {
        self.0 >> 1 >> (63 - bits)
    }

    /// Without the first bits, of which there are at most 63.
    #[inline(always)]
    const fn behind(self, bits: u32) -> Self {
        Self(self.0 << bits | self.1 >> 1 >> (63 - bits), self.1 << bits)
    }
}

/// What is known of an address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaf(pub u32);

impl Leaf {
    /// The highest class.
    pub const CLASSES: u32 = (1 << 20) - 1;
    const LISTED: u32 = 1 << 24;

    /// Puts it together.
    pub const fn new(class: u32, plane: u8, listed: bool) -> Self {
        let listed = if listed { Self::LISTED } else { 0 };
        Self((class & Self::CLASSES) | (plane as u32 & 15) << 20 | listed)
    }

    /// The class; 0: no rule asks for it.
    #[inline(always)]
    pub const fn class(self) -> u32 {
        self.0 & Self::CLASSES
    }

    /// The plane whose prefix it lies in; 0: none's.
    #[inline(always)]
    pub const fn plane(self) -> u8 {
        (self.0 >> 20 & 15) as u8
    }

    /// Whether its class is on a block list of some plane.
    #[inline(always)]
    pub const fn listed(self) -> bool {
        self.0 & Self::LISTED != 0
    }
}

/// In an entry of a root: the rest is a node, not a leaf.
pub const NODE: u32 = 1 << 31;

/// 64 slots.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Node {
    /// Slots that lead to a node.
    pub inner: u64,
    /// Slots that begin a run of slots with one leaf; those that lead to a
    /// node do not end a run.
    pub runs: u64,
    /// The number of its first node, less 1.
    pub nodes: u32,
    /// The number of its first leaf, less 1. With a jump, that place has the
    /// leaf of the addresses that differ in the bits jumped over.
    pub leaves: u32,
    /// Bits that are jumped over in the low six bits, and what they must be.
    pub jump: u64,
}

// SAFETY: integers without padding; 32 bytes.
unsafe impl Content for Node {}

/// Finds an address, from root number `root`.
#[inline(always)]
pub fn find<K: Cells>(tables: &K, header: &Header, root: u32, address: Address) -> Option<Leaf> {
    let place = root * (1 << ROOT_BITS) + address.first(ROOT_BITS) as u32;
    let entry: u32 = item(tables, header.roots, place)?;
    if entry & NODE == 0 {
        return Some(Leaf(entry));
    }
    let mut number = entry ^ NODE;
    let mut rest = address.behind(ROOT_BITS);
    for _ in 0..STEPS {
        let node: Node = item(tables, header.nodes, number)?;
        // Most nodes jump over no bits, which are what they must be. They are
        // not let off, as the verifier would look at all that follows twice.
        let bits = (node.jump & 63) as u32;
        if rest.first(bits) != node.jump >> 6 {
            return item(tables, header.leaves, node.leaves).map(Leaf);
        }
        rest = rest.behind(bits);
        let slot = rest.first(STEP);
        // For slot 63 the shift leaves nothing, and all bits count.
        let up_to = (2_u64 << slot).wrapping_sub(1);
        if node.inner >> slot & 1 == 0 {
            let leaf = node.leaves.wrapping_add((node.runs & up_to).count_ones());
            return item(tables, header.leaves, leaf).map(Leaf);
        }
        number = node.nodes.wrapping_add((node.inner & up_to).count_ones());
        rest = rest.behind(STEP);
    }
    None
}
