//! What was decided about packets like this one: in an array of each CPU, one
//! entry a place, where a packet that is one of many finds its verdict without
//! tables and rules.
//!
//! There are two kinds of entries, each in its own half, so that a flood of
//! first packets does not wash out what is known of flows:
//!
//! - A *flow's* has all that a [`FlowKey`](super::FlowKey) has.
//! - A *first packet's* has what rules look at: not the source port, and of a
//!   source that is of a common [`kind`] no more than that. Whose rates it counts against is
//!   a part of the verdict; what is left of them is asked each time
//!   ([`super::charge`]).
//!
//! An entry holds for a [`LEASE`], and for the generation of the policy that it
//! came from and no other. Then the tables are asked again, so that a flow is
//! forgotten by its last use there, give or take a lease. An entry says what
//! they would say: a packet gets the same verdict whether there is one or not.

use super::{
    address::Address,
    facts::{Facts, Family, Fragment, Malformed},
    flow,
    image::Plane,
    kind,
    outcome::{Outcome, Words},
    verdict::Tables,
};

/// Entries, on each CPU: half of them flows'.
pub const MEMOS: u32 = 1 << 12;

const HALF: u32 = MEMOS / 2;

/// How long an entry holds, in ticks of the kernel's clock (jiffies): a
/// tenth of a second to one, by `CONFIG_HZ` (1000 to 100).
pub const LEASE: u64 = 100;

/// An entry. 64 bytes, without padding.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Memo {
    /// Where the packet came from; of sources of a common kind 0.
    source: Address,
    /// Where it went.
    destination: Address,
    /// The rest of what it was ([`Key`]).
    what: u64,
    /// The tick from which on it does not hold.
    until: u64,
    /// The generation of the policy; 0: there is no entry.
    generation: u32,
    /// What became of the packet.
    outcome: Words,
}

/// What an entry is found by, with the addresses.
#[derive(Clone, Copy)]
pub struct Key {
    /// ```text
    /// 0..8 protocol | 8..16 family | 16..32 destination port, or type and code
    /// 32..48 source port, of flows | 48..56 plane | 56..58 fragment
    /// 58..61 WireGuard's message | 61 second kind of source | 62 usual | 63 flow
    /// ```
    /// Versions share the memo: what a bit means stays.
    what: u64,
    /// The bits of the source that count: all or none.
    mask: u64,
    /// The place of its entry: less than [`MEMOS`].
    place: u32,
}

impl Key {
    /// Of a packet's flow.
    #[inline(always)]
    pub const fn flow(facts: &Facts, number: u8) -> Self {
        let port = (facts.source_port as u64) << 32;
        let (what, within) = Self::parts(facts, number, port, u64::MAX);
        Self {
            what: what | 1 << 63,
            mask: u64::MAX,
            place: HALF | within,
        }
    }

    /// Of a first packet.
    #[inline(always)]
    pub fn first<K: Tables>(tables: &mut K, plane: &Plane, facts: &Facts, number: u8) -> Self {
        let kind = kind::of(tables, plane, facts);
        let mask = if kind == kind::OWN { u64::MAX } else { 0 };
        let (what, within) = Self::parts(facts, number, 0, mask);
        Self {
            what: what | kind << 61,
            mask,
            // Two kinds of one destination do not take each other's place.
            place: within ^ kind as u32,
        }
    }

    /// The place of its entry.
    #[inline(always)]
    pub const fn place(self) -> u32 {
        self.place
    }

    /// What both kinds have in common, and a place within their half.
    #[inline(always)]
    const fn parts(facts: &Facts, number: u8, port: u64, mask: u64) -> (u64, u32) {
        // Of port and type one is 0. Loaded one by one, as they were written:
        // a load of what several stores wrote waits for them.
        let kind = (facts.icmp_type as u64) << 8 | facts.icmp_code as u64;
        let what = port
            | (facts.message as u64) << 58
            | facts.protocol as u64
            | (facts.family as u64) << 8
            | (facts.destination_port as u64 | kind) << 16
            | (number as u64) << 48
            | (facts.fragment as u64) << 56;
        // Those of IPv4 lie in the upper halves, so one goes below the other.
        // Nobody gains by two packets with one place: the later one is asked
        // about once more.
        let from = facts.source.0 ^ facts.source.1;
        let to = (facts.destination.0 ^ facts.destination.1).rotate_right(32);
        let from = from.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let to = (to ^ what).wrapping_mul(0xd6e8_feb8_6659_fd93);
        // The mask comes last, as it is known later than all else.
        let mixed = to ^ from & mask;
        (what, (mixed >> (64 - HALF.trailing_zeros())) as u32)
    }
}

impl Memo {
    #[inline(always)]
    fn is_of(&self, key: Key, facts: &Facts, generation: u32) -> bool {
        self.what == key.what
            && self.generation == generation
            && self.source.0 == facts.source.0 & key.mask
            && self.destination.0 == facts.destination.0
            && self.source.1 == facts.source.1 & key.mask
            && self.destination.1 == facts.destination.1
    }
}

/// What was decided about packets like this, if anything: of a flow, or of
/// first packets where it can be of no flow that is known. An `Option` of so much would be
/// copied byte by byte in the kernel.
#[inline(always)]
pub fn recall<K: Tables>(
    tables: &mut K,
    number: u8,
    plane: &Plane,
    facts: &Facts,
    outcome: &mut Outcome,
) -> bool {
    let ip = matches!(facts.family, Family::V4 | Family::V6);
    if facts.malformed as u8 != Malformed::No as u8 || !ip {
        return false;
    }
    if flow::may_have(facts) {
        let key = Key::flow(facts, number);
        if at(tables, key, plane.generation, facts, outcome) {
            return true;
        }
        if flow::may_be_known(tables, facts, number) {
            return false;
        }
    }
    recall_first(tables, number, plane, facts, outcome)
}

/// The same of a packet that is of no flow.
#[inline(always)]
pub fn recall_first<K: Tables>(
    tables: &mut K,
    number: u8,
    plane: &Plane,
    facts: &Facts,
    outcome: &mut Outcome,
) -> bool {
    let key = Key::first(tables, plane, facts, number);
    at(tables, key, plane.generation, facts, outcome)
}

/// What an entry says, and whether there is one.
#[inline(always)]
fn at<K: Tables>(
    tables: &mut K,
    key: Key,
    generation: u32,
    facts: &Facts,
    outcome: &mut Outcome,
) -> bool {
    let now = tables.jiffies();
    match tables.memo(key.place) {
        Some(entry) if entry.is_of(key, facts, generation) && now < entry.until => {
            outcome.set(&entry.outcome);
            true
        }
        _ => false,
    }
}

/// Keeps what the table said of a flow.
#[inline(always)]
pub fn keep_flow<K: Tables>(
    tables: &mut K,
    number: u8,
    generation: u32,
    facts: &Facts,
    outcome: Outcome,
) {
    // Parts of datagrams are rare.
    if matches!(facts.fragment, Fragment::Whole) {
        keep(tables, Key::flow(facts, number), generation, facts, outcome);
    }
}

/// Keeps what the rules said of a first packet.
#[inline(always)]
pub fn keep_first<K: Tables>(
    tables: &mut K,
    number: u8,
    plane: &Plane,
    facts: &Facts,
    outcome: Outcome,
) {
    let key = Key::first(tables, plane, facts, number);
    keep(tables, key, plane.generation, facts, outcome);
}

#[inline(always)]
fn keep<K: Tables>(tables: &mut K, key: Key, generation: u32, facts: &Facts, outcome: Outcome) {
    let until = tables.jiffies() + LEASE;
    if let Some(memo) = tables.memo(key.place) {
        *memo = Memo {
            source: Address(facts.source.0 & key.mask, facts.source.1 & key.mask),
            destination: facts.destination,
            what: key.what,
            until,
            generation,
            outcome: outcome.words(),
        };
    }
}

/// Forgets a flow that admits nothing any more.
#[inline(always)]
pub fn forget_flow<K: Tables>(tables: &mut K, number: u8, facts: &Facts) {
    let whole = Facts {
        fragment: Fragment::Whole,
        ..*facts
    };
    let key = Key::flow(&whole, number);
    if let Some(memo) = tables.memo(key.place)
        && memo.what == key.what
    {
        memo.generation = 0;
    }
}
