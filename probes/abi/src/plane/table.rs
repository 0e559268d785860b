//! The rules by class: a hash with buckets of five in a cell.
//!
//! A key is a domain, a class of sources or 0 (any), one of destinations or 0,
//! and one of services or of protocols. Its form says which of the three are
//! narrow: bit 0 the source, bit 1 the destination, bit 2 the service.

use super::{
    Cells,
    image::{Content, Domain, Header},
};

/// Keys in a bucket.
pub const SLOTS: usize = 5;
/// Forms that a key can have.
pub const FORMS: u32 = 8;

/// A cell with keys and their rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Slots {
    /// The keys; 0: free.
    pub keys: [u64; SLOTS],
    /// Their rules.
    pub rules: [u32; SLOTS],
    /// Whether a key that belongs here lies in its other bucket.
    pub more: u32,
}

// SAFETY: integers without padding; 40 + 20 + 4 = 64.
unsafe impl Content for Slots {}

/// A packet's classes within a domain.
#[derive(Clone, Copy, Debug)]
pub struct Classes {
    /// The number of the domain; not 0, so that no key is.
    pub domain: u8,
    /// Class of the source.
    pub source: u32,
    /// Class of the destination.
    pub destination: u32,
    /// Class by port or type.
    pub service: u32,
    /// Class by protocol ([`super::service::Service::protocol`]).
    pub protocol: u32,
}

impl Classes {
    /// The key of a form.
    #[inline(always)]
    pub const fn key(&self, form: u32) -> u64 {
        let source = if form & 1 == 0 { 0 } else { self.source };
        let destination = if form & 2 == 0 { 0 } else { self.destination };
        let service = if form & 4 == 0 {
            self.protocol
        } else {
            self.service
        };
        (self.domain as u64) << 56
            | (source as u64) << 36
            | (destination as u64) << 16
            | service as u64
    }

    /// The forms that can match: a class of 0 is in no key.
    #[inline(always)]
    const fn forms(&self) -> u32 {
        let mut forms = 0xff;
        if self.source == 0 {
            forms &= 0b0101_0101;
        }
        if self.destination == 0 {
            forms &= 0b0011_0011;
        }
        if self.service == 0 {
            forms &= 0b0000_1111;
        }
        forms
    }
}

/// What a packet asks the table for: its classes, and what is known of its
/// domain ([`Domain`]).
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// Its classes.
    pub classes: Classes,
    /// Forms of keys that the domain's rules have.
    pub forms: u32,
    /// The rule for what no other matches.
    pub default: u32,
}

impl Query {
    /// Of a packet in a domain.
    #[inline(always)]
    pub const fn new(domain: &Domain, classes: Classes) -> Self {
        Self {
            classes,
            forms: domain.forms,
            default: domain.default,
        }
    }
}

/// The two buckets of a key.
#[inline(always)]
pub fn buckets(key: u64, seed: u64, buckets: u32) -> (u32, u32) {
    // Multiplying by an odd number mixes upwards; the halves are folded. Keys
    // are numbers that the compiler gave, so nobody outside can choose them.
    let mixed = (key ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
    let scaled = |half: u64| ((half * u64::from(buckets)) >> 32) as u32;
    (scaled(mixed >> 32), scaled(mixed & 0xffff_ffff))
}

/// The first rule that matches, or the domain's default.
#[inline(always)]
pub fn first<K: Cells>(tables: &K, header: &Header, query: &Query) -> Option<u32> {
    let forms = query.forms & query.classes.forms();
    let mut first = query.default;
    for form in 0..FORMS {
        if forms >> form & 1 != 0 {
            let rule = look_up(tables, header, query.classes.key(form), query.default)?;
            if rule < first {
                first = rule;
            }
        }
    }
    Some(first)
}

/// The rule of a key, or `none`. That is no constant: what is compared with one
/// the verifier keeps apart, and looks at all that follows for each.
#[inline(always)]
fn look_up<K: Cells>(tables: &K, header: &Header, key: u64, none: u32) -> Option<u32> {
    let (bucket, other) = buckets(key, header.seed, header.buckets);
    let slots: &Slots = tables.cell(header.table.wrapping_add(bucket))?.at(0);
    let rule = within(slots, key, none);
    if rule != none || slots.more == 0 {
        return Some(rule);
    }
    let slots: &Slots = tables.cell(header.table.wrapping_add(other))?.at(0);
    Some(within(slots, key, none))
}

#[inline(always)]
fn within(slots: &Slots, key: u64, none: u32) -> u32 {
    for slot in 0..SLOTS {
        if slots.keys[slot] == key {
            return slots.rules[slot];
        }
    }
    none
}
