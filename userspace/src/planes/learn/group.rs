//! What packets have in common.

use kldtrace_abi::plane::{Facts, Family, Fragment, flow};

use crate::planes::{
    compile::{ICMP, ICMPV6, TCP, UDP},
    policy::{self, Policy, Prefix},
};

/// Between which planes, and where it is accepted. Places in the policy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Way {
    /// Where it arrives.
    pub on: usize,
    /// Where it comes from.
    pub from: usize,
    /// Where it goes to.
    pub to: usize,
}

impl Way {
    /// Of a packet that arrives on a plane; `None`: no rules are for it.
    pub fn of(policy: &Policy, on: usize, facts: &Facts) -> Option<Self> {
        let v6 = facts.family == Family::V6;
        let from = plane_of(policy, policy::ip(facts.source, v6)).unwrap_or(on);
        let to = plane_of(policy, policy::ip(facts.destination, v6)).unwrap_or(on);
        (from == on || to == on).then_some(Self { on, from, to })
    }

    /// Whether it crosses from one plane to another.
    pub fn crosses(self) -> bool {
        self.from != self.to
    }
}

/// The plane of an address, as [`kldtrace_abi::plane`] has it: of the longest
/// prefix, the first of two alike, and none for what belongs to each link.
fn plane_of(policy: &Policy, address: std::net::IpAddr) -> Option<usize> {
    let one = Prefix::new(address, 128);
    let nowhere = Prefix::NOWHERE.into_iter().map(|prefix| (None, prefix));
    let planes = policy.planes.iter().enumerate();
    let own = planes.flat_map(|(place, plane)| {
        let prefixes = plane.prefixes.iter();
        prefixes.map(move |prefix| (Some(place), *prefix))
    });
    // The first of those with the same length.
    let around = own
        .chain(nowhere)
        .filter(|(_, prefix)| prefix.contains(one));
    around
        .reduce(|best, next| {
            if next.1.length > best.1.length {
                next
            } else {
                best
            }
        })
        .and_then(|(place, _)| place)
}

/// What a rule would name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Service {
    /// Between which planes.
    pub way: Way,
    /// The protocol.
    pub protocol: u8,
    /// What of it.
    pub what: What,
    /// A group or broadcast address that it goes to.
    pub to: Option<Prefix>,
}

/// What of a protocol.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum What {
    /// A port.
    Port(u16),
    /// A type of ICMP or ICMPv6.
    Type(u8),
    /// Later parts of datagrams.
    Later,
    /// All of it.
    All,
}

impl Service {
    /// Of a packet; `None`: rules have no word for it.
    pub fn of(way: Way, facts: &Facts) -> Option<Self> {
        let v6 = match facts.family {
            Family::V4 => false,
            Family::V6 => true,
            Family::Arp | Family::Other => return None,
        };
        let what = match (facts.fragment, facts.protocol) {
            (Fragment::Later, _) => What::Later,
            (_, TCP | UDP) => What::Port(facts.destination_port),
            (_, ICMP) if !v6 => What::Type(facts.icmp_type),
            (_, ICMPV6) if v6 => What::Type(facts.icmp_type),
            (_, ICMP | ICMPV6) => return None,
            _ => What::All,
        };
        let to = Prefix::new(policy::ip(facts.destination, v6), 128);
        let nowhere = Prefix::NOWHERE
            .into_iter()
            .any(|prefix| prefix.contains(to));
        Some(Self {
            way,
            protocol: facts.protocol,
            what,
            to: nowhere.then_some(to),
        })
    }
}

/// Where it comes from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Source {
    /// The prefixes of the plane that it comes from.
    Plane,
    /// A network or an address.
    Prefix(Prefix),
}

impl Source {
    /// Of a packet that comes from a plane; `exact`: its address, else its
    /// network.
    pub fn of(policy: &Policy, from: usize, facts: &Facts, exact: bool) -> Self {
        let v6 = facts.family == Family::V6;
        let one = Prefix::new(policy::ip(facts.source, v6), 128);
        if let Some(link) = Prefix::NOWHERE.into_iter().find(|link| link.contains(one)) {
            return Self::Prefix(link);
        }
        // Half the world is nobody's neighbour.
        let narrow = |prefix: &&Prefix| prefix.length >= if prefix.v6 { 16 } else { 8 };
        let mut own = policy.planes[from].prefixes.iter().filter(narrow);
        // `@plane` stands for all of them.
        let all = policy.planes[from].prefixes.iter().all(|one| narrow(&one));
        if all && own.any(|prefix| prefix.contains(one)) {
            return Self::Plane;
        }
        let network = if v6 { 64 } else { 24 };
        let length = if exact { 128 } else { network };
        Self::Prefix(Prefix::new(one.address(), length))
    }
}

/// A service and a source of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Group {
    /// The service.
    pub service: Service,
    /// The source.
    pub source: Source,
}

/// Whether a packet begins something. Of what is not TCP nobody knows.
pub fn begins(facts: &Facts) -> bool {
    facts.protocol != TCP || flow::begins(facts)
}
