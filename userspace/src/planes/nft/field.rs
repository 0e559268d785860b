//! What rules ask about packets.

use serde_json::Value as Json;

use super::{
    node::Node,
    packet::{Bound, Packet, SYN},
};
use crate::planes::{
    compile::{ICMP, ICMPV6, TCP, UDP},
    policy::Prefix,
};

/// Where in the kernel a rule is asked (include/uapi/linux/netfilter.h).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hook {
    /// As it comes from the driver.
    Ingress,
    /// Before it is routed.
    Prerouting,
    /// To this node.
    Input,
    /// Through this node.
    Forward,
    /// Routed, on its way out.
    Postrouting,
}

/// What a packet has in a field.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    /// An address.
    Address(Prefix),
    /// A number.
    Number(u64),
    /// A name.
    Name(&'a str),
    /// Several at once.
    Joined(Vec<Self>),
    /// It has no such field: no comparison holds, not even `!=`.
    Absent,
    /// It cannot be told.
    Unknown,
}

/// What a rule compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The interface that it came in by.
    Arrives,
    /// The interface that it goes out by.
    Leaves,
    /// Its protocol, of IPv4 alone (4), of IPv6 alone (6) or of both (0).
    Protocol(u8),
    /// Whether it is of IPv4 or IPv6, as the kernel's families.
    Nfproto,
    /// The same, as Ethernet's types.
    Ethertype,
    /// Its source or destination in IPv6 or IPv4.
    Address {
        /// Whether it is the destination.
        destination: bool,
        /// Whether it is IPv6.
        v6: bool,
    },
    /// Its source or destination port, for protocols of this number (0: TCP or
    /// UDP).
    Port {
        /// Whether it is the destination's.
        destination: bool,
        /// The protocol.
        protocol: u8,
    },
    /// Flags of TCP.
    TcpFlags,
    /// The type of ICMP or ICMPv6.
    IcmpType(u8),
    /// The code of ICMP or ICMPv6.
    IcmpCode(u8),
    /// The place of a part within a datagram of IPv4, masked by these bits.
    Part(u64),
    /// How the connection stands.
    State,
    /// What kind of address its destination is.
    Kind,
    /// One of its bits.
    Masked(Box<Self>, u64),
    /// Several at once.
    Joined(Vec<Self>),
    /// Something else of a protocol of this number.
    Within(u8),
    /// Something else.
    Odd,
}

/// What is asked where.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// The node.
    pub node: &'a Node,
    /// The hook.
    pub hook: Hook,
    /// Whether conntrack has seen it, and no rule has kept it from that.
    pub tracked: bool,
}

impl Field {
    /// include/uapi/linux/netfilter.h: `NFPROTO_IPV4`.
    pub const IPV4: u64 = 2;
    /// `NFPROTO_IPV6`.
    pub const IPV6: u64 = 10;

    /// A number as it is meant: nft 1.0.6 prints types of Ethernet with their
    /// bytes swapped. Numbers below 1,536 are none.
    pub fn host(&self, number: u64) -> u64 {
        match u16::try_from(number) {
            Ok(short @ (0x0008 | 0xdd86)) if *self == Self::Ethertype => short.swap_bytes().into(),
            _ => number,
        }
    }

    /// Reads the left side of a comparison.
    pub fn read(json: &Json) -> Self {
        Self::known(json).unwrap_or(Self::Odd)
    }

    fn known(json: &Json) -> Option<Self> {
        let (kind, body) = json.as_object()?.iter().next()?;
        let text = |key: &str| body.get(key).and_then(Json::as_str);
        Some(match &kind[..] {
            "meta" => match text("key")? {
                "iif" | "iifname" => Self::Arrives,
                "oif" | "oifname" => Self::Leaves,
                "l4proto" => Self::Protocol(0),
                "nfproto" => Self::Nfproto,
                "protocol" => Self::Ethertype,
                _ => return None,
            },
            "payload" => Self::payload(text("protocol")?, text("field")?),
            // Of a connection's first packet the direction is known as well,
            // but nobody asks.
            "ct" if text("key")? == "state" => Self::State,
            "fib" => {
                let flags = body.get("flags")?.as_array()?;
                let daddr = flags.len() == 1 && flags[0] == "daddr";
                (daddr && text("result")? == "type").then_some(Self::Kind)?
            }
            "&" => match body.as_array()?.as_slice() {
                [left, mask] => match (Self::known(left)?, bits(mask)?) {
                    (Self::Part(_), mask) => Self::Part(mask),
                    (field, mask) => Self::Masked(Box::new(field), mask),
                },
                _ => return None,
            },
            "concat" => Self::Joined(body.as_array()?.iter().map(Self::read).collect()),
            _ => return None,
        })
    }

    fn payload(protocol: &str, field: &str) -> Self {
        let number = match protocol {
            "tcp" => TCP,
            "udp" => UDP,
            "icmp" => ICMP,
            "icmpv6" => ICMPV6,
            "udplite" => 136,
            "sctp" => 132,
            "dccp" => 33,
            "esp" => 50,
            "ah" => 51,
            "comp" => 108,
            "igmp" => 2,
            "th" | "ip" | "ip6" => 0,
            _ => return Self::Odd,
        };
        match (protocol, field) {
            ("ip" | "ip6", "saddr" | "daddr") => Self::Address {
                destination: field == "daddr",
                v6: protocol == "ip6",
            },
            ("ip", "protocol") => Self::Protocol(4),
            ("ip6", "nexthdr") => Self::Protocol(6),
            ("ip", "frag-off") => Self::Part(u64::MAX),
            ("tcp" | "udp" | "th", "sport" | "dport") => Self::Port {
                destination: field == "dport",
                protocol: number,
            },
            ("tcp", "flags") => Self::TcpFlags,
            ("icmp" | "icmpv6", "type") => Self::IcmpType(number),
            ("icmp" | "icmpv6", "code") => Self::IcmpCode(number),
            (_, _) if number != 0 => Self::Within(number),
            _ => Self::Odd,
        }
    }

    /// What a packet has there.
    pub fn of<'a>(&self, asked: Asked<'a>) -> Value<'a> {
        let packet = asked.packet;
        let v6 = packet.source.is_ipv6();
        let number = |number: u64| Value::Number(number);
        match self {
            // Later kernels know it there, too.
            Self::Arrives if asked.hook == Hook::Postrouting => Value::Unknown,
            Self::Arrives => Value::Name(&packet.arrives),
            Self::Leaves => match (&packet.bound, asked.hook) {
                (Bound::Through(Some(name)), Hook::Forward | Hook::Postrouting) => {
                    Value::Name(name)
                }
                _ => Value::Unknown,
            },
            Self::Protocol(4) | Self::Part(_) if v6 => Value::Absent,
            Self::Protocol(6) if !v6 => Value::Absent,
            Self::Protocol(_) => number(packet.protocol.into()),
            Self::Nfproto => number(if v6 { Self::IPV6 } else { Self::IPV4 }),
            // include/uapi/linux/if_ether.h.
            Self::Ethertype => number(if v6 { 0x86dd } else { 0x0800 }),
            Self::Address { v6: six, .. } if *six != v6 => Value::Absent,
            Self::Address { destination, .. } => {
                let address = if *destination {
                    packet.destination
                } else {
                    packet.source
                };
                Value::Address(Prefix::new(address, 128))
            }
            Self::Port {
                destination,
                protocol,
            } => match (packet.has_ports(), *protocol) {
                (true, 0) => number(port(packet, *destination)),
                (true, one) if one == packet.protocol => number(port(packet, *destination)),
                (false, 0) => Value::Unknown,
                _ => Value::Absent,
            },
            Self::TcpFlags if packet.protocol == TCP => number(SYN.into()),
            Self::IcmpType(protocol) if *protocol == packet.protocol => number(packet.kind.into()),
            Self::IcmpCode(protocol) if *protocol == packet.protocol => number(0),
            Self::Within(protocol) if *protocol == packet.protocol => Value::Unknown,
            Self::TcpFlags | Self::IcmpType(_) | Self::IcmpCode(_) | Self::Within(_) => {
                Value::Absent
            }
            // "Do not fragment" may be set; the rest is 0 in a whole datagram.
            Self::Part(mask) if mask & 0x4000 == 0 => number(0),
            Self::State => state(asked),
            Self::Kind => kind(asked),
            Self::Masked(field, mask) => match field.of(asked) {
                Value::Number(one) => number(one & mask),
                Value::Absent => Value::Absent,
                _ => Value::Unknown,
            },
            Self::Joined(fields) => {
                let values: Vec<_> = fields.iter().map(|field| field.of(asked)).collect();
                if values.iter().any(|value| matches!(value, Value::Absent)) {
                    return Value::Absent;
                }
                Value::Joined(values)
            }
            Self::Part(_) | Self::Odd => Value::Unknown,
        }
    }
}

fn port(packet: &Packet, destination: bool) -> u64 {
    if destination {
        packet.port.into()
    } else {
        Packet::SOURCE_PORT.into()
    }
}

/// How conntrack sees a first packet. Of ICMP only questions are new
/// (net/netfilter/nf_conntrack_proto_icmp.c and `_icmpv6.c`); others belong to
/// what they tell of, or to nothing.
fn state(asked: Asked<'_>) -> Value<'static> {
    // include/uapi/linux/netfilter/nf_conntrack_common.h: `NF_CT_STATE_BIT` of
    // `IP_CT_NEW`, as nft shows it.
    const NEW: u64 = 8;
    let packet = asked.packet;
    let new = match packet.protocol {
        ICMP => matches!(packet.kind, 8 | 13 | 15 | 17),
        ICMPV6 => packet.kind == 128,
        _ => true,
    };
    if new && asked.tracked {
        Value::Number(NEW)
    } else {
        Value::Unknown
    }
}

/// The kind of the destination: include/uapi/linux/rtnetlink.h.
fn kind(asked: Asked<'_>) -> Value<'static> {
    const UNICAST: u64 = 1;
    const LOCAL: u64 = 2;
    const MULTICAST: u64 = 5;
    let packet = asked.packet;
    if packet.destination.is_multicast() {
        return Value::Number(MULTICAST);
    }
    match packet.bound {
        Bound::Here if asked.node.has(packet.destination) => Value::Number(LOCAL),
        Bound::Here => Value::Unknown,
        Bound::Through(_) => Value::Number(UNICAST),
    }
}

/// Bits: a number, or a list of them.
pub fn bits(json: &Json) -> Option<u64> {
    match json {
        Json::Number(number) => number.as_u64(),
        Json::Array(list) => list
            .iter()
            .try_fold(0, |all, one| Some(all | one.as_u64()?)),
        _ => None,
    }
}
