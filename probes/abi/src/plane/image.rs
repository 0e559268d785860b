//! The layout of an image: what lies in which cell.
//!
//! ```text
//! cell 0          Header
//! cell n          Plane n, from 1 to 15
//! cell 16 + n     Limits of plane n
//! header.domains  Domain n, one a cell; 0 is none
//! header.classes  Listed, for classes of sources that are on a block list
//! plane.pages     pages of bits about sources, for each family
//! plane.groups    kind::Group of blocks of sources, two a cell, for each family
//! group.parts     kind::Parts of blocks of sources, four a cell
//! header.services service::ENTRIES entries of 32 bits, sixteen a cell
//! header.roots    four roots of tries, address::ROOT_CELLS cells each
//! header.rules    Rule n, two a cell; 0 is none
//! header.nodes    nodes of all tries, two a cell
//! header.leaves   leaves of all tries, sixteen a cell
//! header.table    buckets of the table of rules, one a cell
//! ```

use super::{Cells, rate::Rate};

/// Cells in one value of the kernel's map: 1 MiB. What most packets ask for
/// comes first in an image, and the kernel reaches all of the first value
/// without a call.
pub const CHUNK: usize = 1 << 14;

/// Planes are numbered from 1 to this.
pub const PLANES: usize = 15;

/// 64 bytes of an image.
#[repr(C, align(8))]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cell(pub [u64; 8]);

/// What may be read out of a cell.
///
/// # Safety
/// Only for `repr(C)` types of integers, without padding, aligned to at most 8
/// and with a size that divides 64: any bytes are one.
pub unsafe trait Content: Copy {}

// SAFETY: plain integers.
unsafe impl Content for u32 {}
// SAFETY: plain integers.
unsafe impl Content for u16 {}
// SAFETY: plain integers.
unsafe impl Content for u64 {}

impl Cell {
    /// The item at a place of a cell that has `64 / size_of::<T>()` of them.
    /// The place is taken modulo that, which tells the verifier its range.
    #[inline(always)]
    pub fn at<T: Content>(&self, place: u32) -> &T {
        const { assert!(64 % size_of::<T>() == 0 && align_of::<T>() <= 8) };
        let place = place as usize % (64 / size_of::<T>());
        // SAFETY: within the cell and aligned by the assertion; any bytes are
        // a `T` by the contract of `Content`.
        unsafe { &*core::ptr::from_ref(self).cast::<T>().add(place) }
    }

    /// The same for writing.
    pub fn at_mut<T: Content>(&mut self, place: u32) -> &mut T {
        const { assert!(64 % size_of::<T>() == 0 && align_of::<T>() <= 8) };
        let place = place as usize % (64 / size_of::<T>());
        // SAFETY: as above.
        unsafe { &mut *core::ptr::from_mut(self).cast::<T>().add(place) }
    }
}

/// Item `number` of those that begin at cell `first`.
#[inline(always)]
pub(super) fn item<T: Content, K: Cells>(tables: &K, first: u32, number: u32) -> Option<T> {
    let each = const { 64 / size_of::<T>() as u32 };
    let cell = tables.cell(first.wrapping_add(number / each))?;
    Some(*cell.at(number))
}

/// Cell 0: where everything is. Each is the number of a cell.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Header {
    /// Which policy this is; never 0.
    pub generation: u32,
    /// The domains.
    pub domains: u32,
    /// The rules.
    pub rules: u32,
    /// What is on block lists.
    pub classes: u32,
    /// The classes of services.
    pub services: u32,
    /// Roots of tries: sources of IPv4 and IPv6, then destinations.
    pub roots: u32,
    /// Nodes of tries.
    pub nodes: u32,
    /// Leaves of tries.
    pub leaves: u32,
    /// The table of rules.
    pub table: u32,
    /// Its buckets; at least 1.
    pub buckets: u32,
    /// Chosen so that all keys find room.
    pub seed: u64,
    /// Cells of the image.
    pub cells: u32,
    /// 0.
    pub unused: [u32; 3],
}

// SAFETY: integers; 4 * 10 + 8 + 4 * 4 = 64.
unsafe impl Content for Header {}

/// A bit of [`Plane::flags`]: drops are carried out, not only counted.
pub const ENFORCE: u8 = 1;
/// A bit of [`Plane::flags`]: parts of datagrams are dropped.
pub const WHOLE_ONLY: u8 = 2;
/// A bit of [`Plane::flags`]: frames that carry neither IP nor ARP pass.
pub const OTHER_FRAMES: u8 = 4;

/// A bit of [`Plane::flags`]: it has [`Limits`].
pub const LIMITS: u8 = 8;
/// A bit of [`Plane::flags`]: it has ports of WireGuard.
pub const WIREGUARD: u8 = 16;

/// Cells of the planes and of their limits, with that of the header.
pub const PLANE_CELLS: usize = 2 * (PLANES + 1);

/// A plane. First what [`super::at_once`] asks for.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Plane {
    /// [`ENFORCE`] and the like.
    pub flags: u8,
    /// What always passes: bits by [`super::service::Always`].
    pub always: u8,
    /// The domain of its own traffic; 0: there is no such plane.
    pub own: u8,
    /// 0.
    pub unused: u8,
    /// Which policy this is, as in [`Header`]: most packets need only this
    /// cell.
    pub generation: u32,
    /// Domains of what goes from this plane to that of the number; 0: none.
    pub to: [u8; 16],
    /// Domains of what comes from the plane of the number to this one.
    pub from: [u8; 16],
    /// Ports of UDP that take WireGuard's messages and nothing else; the rest
    /// are 0.
    pub wireguard: [u16; WIREGUARD_PORTS],
    /// The cells at which [`super::kind`] has its pages for IPv4 and IPv6, the
    /// same for all planes; 0: there are none, as in images of versions without.
    pub pages: [u32; 2],
    /// The numbers of its first groups, from the image's first cell on; 0 as
    /// well.
    pub groups: [u32; 2],
}

// SAFETY: integers without padding; 8 + 16 + 16 + 8 + 8 + 8 = 64.
unsafe impl Content for Plane {}

/// Ports of WireGuard that a plane can have.
pub const WIREGUARD_PORTS: usize = 4;

/// What a plane takes from one source.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// First packets.
    pub first: Rate,
    /// First segments of TCP, SYN without ACK.
    pub syn: Rate,
    /// 0.
    pub reserved: [u64; 4],
}

// SAFETY: integers without padding; 16 + 16 + 32 = 64.
unsafe impl Content for Limits {}

/// Rules that are tried together.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Domain {
    /// Forms of keys that its rules have: bit n for form n of
    /// [`super::table`].
    pub forms: u32,
    /// The rule for what no other matches: the highest number of them.
    pub default: u32,
    /// 0.
    pub unused: [u32; 14],
}

// SAFETY: integers; 64 bytes.
unsafe impl Content for Domain {}

/// A rule, once it has matched.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Rule {
    /// Whether it lets packets pass (1) or drops them (0).
    pub pass: u8,
    /// The [`super::Reason`] that it gives.
    pub reason: u8,
    /// 1: its rate counts initiations of WireGuard alone.
    pub initiations: u8,
    /// 0.
    pub unused: u8,
    /// Where it is counted.
    pub counter: u32,
    /// What it lets pass from one source.
    pub rate: Rate,
    /// 0.
    pub reserved: u64,
}

// SAFETY: integers without padding; 8 + 16 + 8 = 32.
unsafe impl Content for Rule {}

/// A class of sources that is on a block list: the rule by the number of the
/// plane; 0: the class is on none of that plane's lists.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Listed {
    /// The rules.
    pub rules: [u32; 16],
}

// SAFETY: integers; 64 bytes.
unsafe impl Content for Listed {}
