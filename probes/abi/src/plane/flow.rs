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
//! A segment of TCP in the middle of a connection that is not known, as after
//! the first start, makes it the node's own: what is there goes on.

use super::{
    address::Address,
    facts::{Facts, Family, Fragment},
    transport::{ICMP, ICMPV6, TCP, UDP},
};

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

    /// Notes that it was seen.
    #[inline(always)]
    pub fn see(&mut self, now: u64) {
        if now.saturating_sub(self.seen) >= FRESH {
            self.seen = now;
        }
    }
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
