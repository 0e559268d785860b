//! Flows that are known: by them return traffic passes without a rule, and
//! packets that a rule has let pass do so again at once.
//!
//! Packets that *leave* make flows, so no flood from outside fills the table.
//! Who began a flow decides how long it holds:
//!
//! - The node, or whom it routes for: a SYN without ACK leaves, or a packet
//!   that no rule would let in. The flow is the node's *own* and outlives the
//!   policy.
//! - The other side, and a rule lets it: the flow is that *rule's* and ends
//!   with the policy's generation. Then the rules are asked again. Rules with
//!   a rate have flows of TCP only, as each packet of others counts.
//! - The other side, and nothing lets it (in audit mode, or since the policy
//!   was replaced): the flow is *refused*. It admits nothing, and keeps the
//!   node's answers from making the flow its own.
//!
//! The table of flows is larger than a CPU's own cache, and datagrams of UDP may
//! all be of a flow. So in front of it are *stamps*: when a flow that lets packets
//! in was last seen, at a place that several flows share by a hash of their key.
//! The table is asked only where a flow may be that has not timed out
//! ([`is_stamped`]). Stamps need no clearing: one is never older than the flows
//! of its place, and the last of them ends with it.
//!
//! A segment of TCP in the middle of a connection that is not known, as after
//! the first start, makes it the node's own: what is there goes on.

use super::{
    address::Address,
    facts::{Facts, Family, Fragment},
    transport::{ICMP, ICMPV6, TCP, UDP},
    verdict::Tables,
};

/// Stamps, of 16 bits each.
pub const STAMPS: u32 = 1 << 16;

/// A flow, seen from this node. 40 bytes without padding.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FlowKey {
    /// The other side's address.
    pub remote: Address,
    /// The address on this side.
    pub local: Address,
    /// The other side's port.
    pub remote_port: u16,
    /// The port on this side. Of ICMP the type that arrives.
    pub local_port: u16,
    /// The protocol.
    pub protocol: u8,
    /// The plane.
    pub plane: u8,
    /// The [`Family`].
    pub family: u8,
    /// 0.
    pub unused: u8,
}

impl FlowKey {
    /// Of a packet that arrives, or the answer to one that leaves; `None`: such
    /// packets belong to no flow.
    #[inline(always)]
    pub fn arriving(facts: &Facts, plane: u8) -> Option<Self> {
        let local_port = if !is_icmp(facts) {
            facts.destination_port
        } else if is_answer(facts.protocol, facts.icmp_type) {
            facts.icmp_type.into()
        } else {
            return None;
        };
        Self::of(facts, plane, local_port)
    }

    /// The place of its stamp: less than [`STAMPS`].
    #[inline(always)]
    pub const fn place(&self) -> u32 {
        // As for a memo: nobody gains by two flows with one place, but that
        // the table is asked.
        let remote = self.remote.0 ^ self.remote.1;
        let local = self.local.0 ^ self.local.1;
        let rest = (self.remote_port as u64) << 32
            | (self.local_port as u64) << 16
            | (self.protocol as u64) << 8
            | self.plane as u64;
        let mixed = (remote ^ local.rotate_right(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 32 ^ rest).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (mixed >> (64 - STAMPS.trailing_zeros())) as u32
    }

    #[inline(always)]
    fn of(facts: &Facts, plane: u8, local_port: u16) -> Option<Self> {
        if matches!(facts.fragment, Fragment::Later) {
            return None;
        }
        Some(Self {
            remote: facts.source,
            local: facts.destination,
            remote_port: facts.source_port,
            local_port,
            protocol: facts.protocol,
            plane,
            family: facts.family as u8,
            unused: 0,
        })
    }
}

/// Whether a packet that arrives may be of a flow. Else the table of flows is
/// not asked.
#[inline(always)]
pub const fn may_have(facts: &Facts) -> bool {
    let question = is_icmp(facts) && !is_answer(facts.protocol, facts.icmp_type);
    !question && !begins(facts) && !matches!(facts.fragment, Fragment::Later)
}

#[inline(always)]
const fn is_icmp(facts: &Facts) -> bool {
    matches!(
        (facts.protocol, facts.family),
        (ICMP, Family::V4) | (ICMPV6, Family::V6)
    )
}

/// The key of a flow of IPv4, as the kernel keeps it: a shorter key is found
/// sooner. In two words, as the kernel hashes words, and a load of what several
/// stores wrote waits for them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ShortKey {
    /// The other side's address on top, and this side's.
    addresses: u64,
    /// From the top: both ports, 16 bits of 0, protocol and plane.
    rest: u64,
}

impl ShortKey {
    /// The same flow; `None` if it is one of IPv6.
    #[inline(always)]
    pub const fn new(key: &FlowKey) -> Option<Self> {
        if key.family != Family::V4 as u8 {
            return None;
        }
        Some(Self {
            addresses: key.remote.0 | key.local.0 >> 32,
            rest: (key.remote_port as u64) << 48
                | (key.local_port as u64) << 32
                | (key.protocol as u64) << 8
                | key.plane as u64,
        })
    }
}

/// Whether an ICMP type answers a question: RFC 792 and RFC 4443.
#[inline(always)]
const fn is_answer(protocol: u8, kind: u8) -> bool {
    matches!((protocol, kind), (ICMP, 0 | 14) | (ICMPV6, 129))
}

/// What is known of a flow.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flow {
    /// When it was last seen, by `CLOCK_MONOTONIC` in nanoseconds.
    pub seen: u64,
    /// The generation of the policy whose rule it is; 0: the node's own.
    pub generation: u32,
    /// The rule; 0 with a generation: that policy would drop it.
    pub rule: u32,
}

/// How often the time of a flow is written: at most once in this, as all CPUs
/// share it. Nanoseconds.
const FRESH: u64 = 1_000_000_000;

impl Flow {
    /// A flow of a generation's rule; 0 and 0: the node's own.
    #[inline(always)]
    pub const fn of(generation: u32, rule: u32, seen: u64) -> Self {
        Self {
            seen,
            generation,
            rule,
        }
    }

    /// Whether it lets a packet that arrives pass, by itself.
    #[inline(always)]
    pub const fn admits(&self, protocol: u8, generation: u32, now: u64) -> bool {
        let current = self.generation == generation && self.rule != 0;
        (self.generation == 0 || current) && now.saturating_sub(self.seen) < idle(protocol)
    }

    /// Whether it is the node's own.
    #[inline(always)]
    pub const fn is_own(&self) -> bool {
        self.generation == 0
    }

    /// Whether it need not be judged again when a packet of it leaves.
    #[inline(always)]
    pub const fn holds(&self, protocol: u8, generation: u32, now: u64) -> bool {
        (self.is_own() || self.generation == generation)
            && now.saturating_sub(self.seen) < idle(protocol)
    }

    /// Notes that it was seen. Returns whether that was written: then
    /// [`stamp`] it.
    #[inline(always)]
    #[must_use]
    pub fn see(&mut self, now: u64) -> bool {
        let due = now.saturating_sub(self.seen) >= FRESH;
        if due {
            self.seen = now;
        }
        due
    }
}

/// Bits of nanoseconds that a stamp leaves out: it counts units of 8.6 s.
const UNIT: u32 = 33;
/// Units that a stamp may be behind its flow: one, as the times of both are cut
/// to whole ones, and one more, as a CPU may write what it read before another.
const LATE: u16 = 2;
/// Units that it may be ahead of who reads it: one, as another CPU was faster,
/// and one more, as 1 stands for 0 too.
const EARLY: u16 = 2;

/// A stamp of a time. 0 is none: no flow of its place has ever been there.
#[inline(always)]
pub const fn stamp_of(now: u64) -> u16 {
    let units = (now >> UNIT) as u16;
    if units == 0 { 1 } else { units }
}

/// Whether a flow with this stamp can still let packets in. After six days and
/// a half a stamp looks like new: then the table is asked for nothing.
#[inline(always)]
const fn may_last(stamp: u16, protocol: u8, now: u64) -> bool {
    const { assert!((idle(TCP) >> UNIT) < (u16::MAX - LATE - EARLY) as u64) };
    let units = (now >> UNIT) as u16;
    let age = units.wrapping_add(EARLY).wrapping_sub(stamp);
    age <= (idle(protocol) >> UNIT) as u16 + LATE + EARLY
}

/// Puts a stamp for a flow that lets packets in, before the table has it.
#[inline(always)]
pub fn stamp<K: Tables>(tables: &mut K, key: &FlowKey, now: u64) {
    if let Some(stamp) = tables.stamp(key.place()) {
        *stamp = stamp_of(now);
    }
}

/// Whether a packet that arrives may be of a flow that lets it in. Else the
/// table of flows need not be asked.
#[inline(always)]
pub fn may_be_known<K: Tables>(tables: &mut K, facts: &Facts, plane: u8) -> bool {
    FlowKey::arriving(facts, plane).is_some_and(|key| is_stamped(tables, &key))
}

/// Whether such a flow may be in the table.
#[inline(always)]
pub fn is_stamped<K: Tables>(tables: &mut K, key: &FlowKey) -> bool {
    let Some(stamp) = tables.stamp(key.place()) else {
        return true;
    };
    let stamp = *stamp;
    stamp != 0 && may_last(stamp, key.protocol, tables.tick())
}

/// Keeps a flow, in place of the one that was there.
#[inline(always)]
pub fn keep<K: Tables>(tables: &mut K, key: &FlowKey, flow: Flow) {
    if flow.is_own() || flow.rule != 0 {
        stamp(tables, key, flow.seen);
    }
    tables.remember(key, flow);
}

/// How long a flow without packets is known, in nanoseconds: the defaults of
/// nf_conntrack (net/netfilter/nf_conntrack_proto_*.c).
#[inline(always)]
const fn idle(protocol: u8) -> u64 {
    const SECOND: u64 = 1_000_000_000;
    match protocol {
        TCP => 5 * 24 * 3600 * SECOND,
        UDP => 120 * SECOND,
        ICMP | ICMPV6 => 30 * SECOND,
        _ => 600 * SECOND,
    }
}

/// Whether a segment that leaves says that the other side began: an answer to
/// its SYN, or a refusal (RFC 9293, 3.5).
#[inline(always)]
pub const fn answers(facts: &Facts) -> bool {
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    facts.protocol == TCP && facts.tcp_flags & (SYN | RST) != 0 && !begins(facts)
}

/// Whether it is TCP.
#[inline(always)]
pub const fn is_tcp(facts: &Facts) -> bool {
    facts.protocol == TCP
}

/// A SYN begins a connection: it belongs to none (RFC 9293, 3.5).
#[inline(always)]
pub const fn begins(facts: &Facts) -> bool {
    const SYN: u8 = 0x02;
    const ACK: u8 = 0x10;
    facts.protocol == TCP && facts.tcp_flags & (SYN | ACK) == SYN
}
