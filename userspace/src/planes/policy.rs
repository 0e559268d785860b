//! A policy as it stands in its file, read and checked.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use kldtrace_abi::plane::{Address, Rate, service::Always};

/// Planes that a policy can have.
pub const MAX_PLANES: usize = kldtrace_abi::plane::image::PLANES;
/// Prefixes that a policy can have in all its sets together.
pub const MAX_PREFIXES: usize = 4_000_000;
/// Rules that a policy can have.
pub const MAX_RULES: usize = 100_000;

/// What a node lets pass, on which of its interfaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// The planes, in the order of the file.
    pub planes: Vec<Plane>,
    /// What may go from one plane to another, in the order of the file.
    pub crosses: Vec<Cross>,
    /// What always passes on the management plane.
    pub floor: Option<Floor>,
    /// Lists of prefixes by name.
    pub sets: Vec<Set>,
}

/// One network of the node.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "switches of the file that have nothing to do with each other"
)]
pub struct Plane {
    /// Its name: the label `plane`.
    pub name: String,
    /// Its number in the kernel, from 1 to [`MAX_PLANES`]: by the order of the
    /// file, until [`super::numbers`] gives it the one that it keeps.
    pub number: u8,
    /// The line in the file, from 1.
    pub line: usize,
    /// Names of its interfaces; `*` stands for any text.
    pub interfaces: Vec<String>,
    /// What addresses it has, other than [`Prefix::NOWHERE`]. An address that
    /// lies in several planes' is of the one with the longest.
    pub prefixes: Vec<Prefix>,
    /// Whether packets pass that no rule matches.
    pub pass: bool,
    /// Whether drops are carried out (`enforce`) or only counted (`audit`).
    pub enforce: bool,
    /// Whether parts of datagrams are dropped.
    pub whole_only: bool,
    /// Whether frames pass that carry neither IP nor ARP.
    pub other_frames: bool,
    /// What always passes.
    pub always: Vec<Always>,
    /// Block lists: indices into [`Policy::sets`].
    pub block: Vec<usize>,
    /// How many first packets may come from one source.
    pub rate: Rate,
    /// How many first segments of TCP.
    pub syn_rate: Rate,
    /// Its ports of WireGuard.
    pub wireguard: Option<WireGuard>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Ports that take WireGuard's messages and nothing else.
#[derive(Clone, Debug, PartialEq)]
pub struct WireGuard {
    /// The ports of UDP.
    pub ports: Vec<u16>,
    /// What lets them in: a rule before all others of the plane but the floor.
    pub rule: Rule,
}

/// A list of prefixes.
#[derive(Clone, Debug, PartialEq)]
pub struct Set {
    /// Its name.
    pub name: String,
    /// The line in the file, from 1.
    pub line: usize,
    /// The prefixes.
    pub prefixes: Vec<Prefix>,
}

/// What is decided about some packets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Its name.
    pub name: String,
    /// The line in the file, from 1.
    pub line: usize,
    /// Whether the packets pass.
    pub pass: bool,
    /// Where they come from; `None`: from anywhere.
    pub sources: Option<Vec<Prefix>>,
    /// Where they go to; `None`: anywhere.
    pub destinations: Option<Vec<Prefix>>,
    /// What they carry.
    pub service: Service,
    /// How many may come from one source.
    pub rate: Rate,
    /// Whether the rate counts initiations of WireGuard alone.
    pub initiations: bool,
}

/// What packets carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    /// Numbers of protocols; empty: any.
    pub protocols: Vec<u8>,
    /// What of these protocols.
    pub narrow: Narrow,
}

/// What of a protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Narrow {
    /// All of it, and all parts of its datagrams.
    #[default]
    All,
    /// Destination ports of TCP or UDP, from and to, both included. Later
    /// parts of datagrams have none.
    Ports(Vec<(u16, u16)>),
    /// Types of ICMP or ICMPv6.
    Types(Vec<u8>),
    /// Later parts of datagrams only.
    Later,
}

/// What may go from one plane to another.
#[derive(Clone, Debug, PartialEq)]
pub struct Cross {
    /// Where it comes from: an index into [`Policy::planes`].
    pub from: usize,
    /// Where it goes to.
    pub to: usize,
    /// Whether it is accepted where it enters this node from `from`.
    pub at_from: bool,
    /// Whether it is accepted where it has crossed elsewhere and arrives on
    /// `to`.
    pub at_to: bool,
    /// The rule.
    pub rule: Rule,
}

/// What nobody locks himself out from.
#[derive(Clone, Debug, PartialEq)]
pub struct Floor {
    /// The management plane: an index into [`Policy::planes`].
    pub plane: usize,
    /// Where it may be reached from.
    pub sources: Vec<Prefix>,
    /// Ports of TCP.
    pub ports: Vec<(u16, u16)>,
    /// The line in the file, from 1.
    pub line: usize,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    /// Whether it is one of IPv6.
    pub v6: bool,
    /// Its first bits on top of 128, the rest 0. Of IPv4 the top 32.
    pub bits: u128,
    /// How many bits count.
    pub length: u8,
}

impl Prefix {
    /// What belongs to no plane that does not name it, as it is on each link:
    /// no address yet, link-local, multicast and broadcast (RFC 6890, RFC
    /// 4291).
    pub const NOWHERE: [Self; 7] = [
        Self::v4([0, 0, 0, 0], 32),
        Self::v4([169, 254, 0, 0], 16),
        Self::v4([224, 0, 0, 0], 4),
        Self::v4([255, 255, 255, 255], 32),
        Self::v6(0, 128),
        Self::v6(0xfe80 << 112, 10),
        Self::v6(0xff << 120, 8),
    ];

    const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Self {
        let bits = (u32::from_be_bytes([a, b, c, d]) as u128) << 96;
        Self {
            v6: false,
            bits,
            length,
        }
    }

    const fn v6(bits: u128, length: u8) -> Self {
        Self {
            v6: true,
            bits,
            length,
        }
    }

    /// The prefix of an address.
    pub fn new(address: IpAddr, length: u8) -> Self {
        let (v6, bits, length) = match address {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits()) << 96, length.min(32)),
            IpAddr::V6(v6) => (true, v6.to_bits(), length.min(128)),
        };
        Self {
            v6,
            bits: bits & mask(length),
            length,
        }
    }

    /// Whether all of the other lies within it.
    pub fn contains(self, other: Self) -> bool {
        self.v6 == other.v6
            && self.length <= other.length
            && other.bits & mask(self.length) == self.bits
    }

    /// The last address's bits.
    pub fn last(self) -> u128 {
        self.bits | !mask(self.length)
    }

    /// Its first address.
    pub fn address(self) -> IpAddr {
        if self.v6 {
            return Ipv6Addr::from_bits(self.bits).into();
        }
        Ipv4Addr::from_bits((self.bits >> 96) as u32).into()
    }
}

/// A mask of so many bits, at most 128.
fn mask(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address(), self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// An address as verdicts have it.
pub fn address(address: IpAddr) -> Address {
    let bits = Prefix::new(address, 128).bits;
    Address((bits >> 64) as u64, bits as u64)
}

/// An address of verdicts.
pub fn ip(address: Address, v6: bool) -> IpAddr {
    let bits = u128::from(address.0) << 64 | u128::from(address.1);
    let prefix = Prefix {
        v6,
        bits,
        length: 128,
    };
    prefix.address()
}
