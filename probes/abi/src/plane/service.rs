//! From protocol and port to a class: an array.

use super::{
    Cells,
    facts::{Facts, Family, Fragment},
    image::{Header, item},
    transport::{ICMP, ICMPV6, TCP, UDP},
};

/// Where UDP's ports begin.
pub const UDP_PORTS: u32 = 1 << 16;
/// Where the types of ICMP begin. "Fragmentation needed" (type 3, code 4) has
/// a place of its own behind them, [`ICMP_TOO_BIG`].
pub const ICMP_TYPES: u32 = 1 << 17;
/// ICMP's type 3 with code 4 (RFC 1191).
pub const ICMP_TOO_BIG: u32 = ICMP_TYPES + 256;
/// Where the types of ICMPv6 begin.
pub const ICMPV6_TYPES: u32 = ICMP_TYPES + 512;
/// Where other protocols begin.
pub const PROTOCOLS: u32 = ICMPV6_TYPES + 256;
/// Where later parts of datagrams begin, by protocol.
pub const LATER: u32 = PROTOCOLS + 256;
/// All of them: a multiple of 16.
pub const ENTRIES: u32 = LATER + 256;

/// What passes on every plane that does not say otherwise by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Always {
    /// Address resolution, and neighbour and router discovery (RFC 4861).
    Neighbours = 1,
    /// Answers of DHCP servers to this node.
    Dhcp = 2,
    /// "Too big": without it connections hang (RFC 1191, RFC 8201).
    PathMtu = 4,
    /// Queries and reports of multicast listeners (RFC 2710, RFC 3810, RFC
    /// 3376).
    Multicast = 8,
}

impl Always {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Neighbours, Self::Dhcp, Self::PathMtu, Self::Multicast];

    /// The word in policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Neighbours => "neighbours",
            Self::Dhcp => "dhcp",
            Self::PathMtu => "path-mtu",
            Self::Multicast => "multicast",
        }
    }

    /// What an entry stands for; `None`: nothing that always passes.
    pub const fn of(entry: u32) -> Option<Self> {
        const V6: u32 = ICMPV6_TYPES;
        const IGMP: u32 = PROTOCOLS + 2;
        // Ports: RFC 2131 and RFC 8415. Types of ICMPv6: IANA,
        // icmpv6-parameters.
        const DHCP_CLIENT: u32 = UDP_PORTS + 68;
        const DHCPV6_CLIENT: u32 = UDP_PORTS + 546;
        if entry >= V6 && entry < PROTOCOLS {
            return match entry - V6 {
                2 => Some(Self::PathMtu),
                130..=132 | 143 => Some(Self::Multicast),
                133..=137 => Some(Self::Neighbours),
                _ => None,
            };
        }
        match entry {
            ICMP_TOO_BIG => Some(Self::PathMtu),
            IGMP => Some(Self::Multicast),
            DHCP_CLIENT | DHCPV6_CLIENT => Some(Self::Dhcp),
            _ => None,
        }
    }
}

/// Which entry a packet has.
#[inline(always)]
pub const fn entry(facts: &Facts) -> u32 {
    let protocol = facts.protocol as u32;
    if matches!(facts.fragment, Fragment::Later) {
        return LATER + protocol;
    }
    match (facts.protocol, facts.family) {
        (TCP, _) => facts.destination_port as u32,
        (UDP, _) => UDP_PORTS + facts.destination_port as u32,
        (ICMP, Family::V4) if facts.icmp_type == 3 && facts.icmp_code == 4 => ICMP_TOO_BIG,
        (ICMP, Family::V4) => ICMP_TYPES + facts.icmp_type as u32,
        (ICMPV6, Family::V6) => ICMPV6_TYPES + facts.icmp_type as u32,
        _ => PROTOCOLS + protocol,
    }
}

/// What is known of protocol and port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Service(pub u32);

impl Service {
    /// The highest class of ports or types; the rest of 16 bits is for
    /// protocols.
    pub const CLASSES: u32 = 0xfeff;
    /// In place of a class of ports in keys: classes of protocols.
    const PROTOCOL: u32 = 0xff00;

    /// Puts it together.
    pub const fn new(class: u32, protocol: u8, always: u8) -> Self {
        Self((class & 0xffff) | (protocol as u32) << 16 | (always as u32) << 24)
    }

    /// The class by port or type; 0: no rule asks for it.
    #[inline(always)]
    pub const fn class(self) -> u32 {
        self.0 & 0xffff
    }

    /// The class by protocol, as it stands in keys.
    #[inline(always)]
    pub const fn protocol(self) -> u32 {
        Self::PROTOCOL | (self.0 >> 16 & 0xff)
    }

    /// The bits of [`Always`] that it has.
    #[inline(always)]
    pub const fn always(self) -> u8 {
        (self.0 >> 24) as u8
    }
}

/// Finds a packet's classes.
#[inline(always)]
pub fn find<K: Cells>(tables: &K, header: &Header, facts: &Facts) -> Option<Service> {
    item(tables, header.services, entry(facts)).map(Service)
}
