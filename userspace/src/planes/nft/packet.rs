//! First packets.

use std::net::IpAddr;

use kldtrace_abi::plane::{Facts, Family};

use crate::planes::{
    compile::{TCP, UDP},
    policy,
};

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// To this node.
    Here,
    /// Through it, out of an interface if that is known.
    Through(Option<String>),
}

/// A packet that begins something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The interface that it arrives on.
    pub arrives: String,
    /// Where it goes.
    pub bound: Bound,
    /// Its source.
    pub source: IpAddr,
    /// Its destination, of the same family.
    pub destination: IpAddr,
    /// Its protocol.
    pub protocol: u8,
    /// The destination port of TCP or UDP, else 0.
    pub port: u16,
    /// The type of ICMP or ICMPv6, else 0. Its code is 0.
    pub kind: u8,
}

impl Packet {
    /// The port that it comes from: one of those that nobody chose.
    pub const SOURCE_PORT: u16 = 40_000;

    /// Whether it has ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.protocol, TCP | UDP)
    }

    /// The same for the planes' verdict.
    pub fn facts(&self) -> Facts {
        let v4 = self.source.is_ipv4();
        Facts {
            source: policy::address(self.source),
            destination: policy::address(self.destination),
            length: 60,
            source_port: if self.has_ports() {
                Self::SOURCE_PORT
            } else {
                0
            },
            destination_port: self.port,
            family: if v4 { Family::V4 } else { Family::V6 },
            protocol: self.protocol,
            icmp_type: self.kind,
            tcp_flags: if self.protocol == TCP { SYN } else { 0 },
            ..Facts::default()
        }
    }
}

/// A bit of TCP's flags (RFC 9293, 3.1).
pub const SYN: u8 = 2;
