//! Packets that stand for all that a rule of a policy lets pass.
//!
//! nftables says the same about all packets between two of the numbers and
//! addresses that stand in its rules, so one of each kind is enough.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::Bound::{Excluded, Included},
};

use super::{
    node::Node,
    packet::{Bound, Packet},
    ruleset::Ruleset,
};
use crate::planes::{
    compile::{ICMP, ICMPV6, TCP, UDP},
    policy::{Narrow, Plane, Prefix, Rule, Service},
};
use crate::words::matches;

/// Packets that are tried for one rule.
pub const MOST: usize = 4096;
/// Kinds of sources and of services that are combined.
const KINDS: usize = 256;

/// Where a rule is tried.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The plane that packets arrive on.
    pub on: &'a Plane,
    /// The plane that they come from.
    pub from: &'a Plane,
    /// The plane that they go to.
    pub to: &'a Plane,
}

/// Packets for a rule at a place; `false`: they are not all kinds.
pub fn packets(
    place: Place<'_>,
    rule: &Rule,
    ruleset: &Ruleset,
    node: &Node,
) -> (Vec<Packet>, bool) {
    let interfaces = node.interfaces.keys();
    let interfaces: Vec<_> = interfaces
        .filter(|name| {
            place
                .on
                .interfaces
                .iter()
                .any(|pattern| matches(pattern, name))
        })
        .collect();
    let (sources, all_sources) = sources(place, rule, ruleset, node);
    let (services, all_services) = services(&rule.service, ruleset);
    let mut complete = all_sources && all_services;
    let mut packets = Vec::new();
    for interface in interfaces {
        for source in &sources {
            for (destination, bound) in destinations(place, rule, interface, *source, node) {
                for (protocol, port, kind) in &services {
                    // Each family has an ICMP of its own.
                    let other = if source.is_ipv4() { ICMPV6 } else { ICMP };
                    if *protocol == other {
                        continue;
                    }
                    if packets.len() >= MOST {
                        complete = false;
                        return (packets, complete);
                    }
                    packets.push(Packet {
                        arrives: interface.clone(),
                        bound: bound.clone(),
                        source: *source,
                        destination,
                        protocol: *protocol,
                        port: *port,
                        kind: *kind,
                    });
                }
            }
        }
    }
    (packets, complete)
}

/// An address for each kind of source.
fn sources(place: Place<'_>, rule: &Rule, ruleset: &Ruleset, node: &Node) -> (Vec<IpAddr>, bool) {
    let everything = [
        Prefix::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        Prefix::new(Ipv6Addr::UNSPECIFIED.into(), 0),
    ];
    let own = &place.from.prefixes[..];
    let own = if own.is_empty() { &everything } else { own };
    let prefixes = rule.sources.as_deref().unwrap_or(own);
    let mut found = Vec::new();
    for prefix in prefixes {
        let cuts = &ruleset.addresses[usize::from(prefix.v6)];
        let inner = cuts.range((Excluded(prefix.bits), Included(prefix.last())));
        let starts: Vec<u128> = [prefix.bits].into_iter().chain(inner.copied()).collect();
        for (place, start) in starts.iter().enumerate() {
            if found.len() >= KINDS {
                return (found, false);
            }
            let end = starts.get(place + 1).map_or(prefix.last(), |next| next - 1);
            found.extend(somebody(prefix.v6, *start, end, node));
        }
    }
    (found, true)
}

/// An address of a range that somebody else may have: not its first, which a
/// network does not give away, unless there is no other.
fn somebody(v6: bool, start: u128, end: u128, node: &Node) -> Option<IpAddr> {
    let step = if v6 { 1 } else { 1 << 96 };
    let address = |bits: u128| {
        Prefix {
            v6,
            bits,
            length: 128,
        }
        .address()
    };
    let tried = (1..8)
        .map(|n: u128| start.saturating_add(n * step))
        .chain([start]);
    tried
        .filter(|bits| *bits <= end)
        .map(address)
        .find(|one| !one.is_unspecified() && !one.is_multicast() && !node.has(*one))
}

/// Where packets of a source go, on an interface of a place.
fn destinations(
    place: Place<'_>,
    rule: &Rule,
    interface: &str,
    source: IpAddr,
    node: &Node,
) -> Vec<(IpAddr, Bound)> {
    let asked = |address: IpAddr| {
        let one = Prefix::new(address, 128);
        let asks = |list: &Vec<Prefix>| list.iter().any(|prefix| prefix.contains(one));
        rule.destinations.as_ref().is_none_or(asks)
    };
    let family = |address: IpAddr| address.is_ipv4() == source.is_ipv4();
    let crosses = !std::ptr::eq(place.from, place.to);
    // The node's own: of what crosses, those on the other plane.
    let own = node.interfaces.iter().filter(|(name, _)| {
        let there = place.to.interfaces.iter().any(|one| matches(one, name));
        if crosses { there } else { *name == interface }
    });
    let own = own.flat_map(|(_, own)| own.iter().map(|(address, _)| *address));
    let mut found: Vec<_> = own
        .filter(|address| family(*address) && asked(*address))
        .map(|address| (address, Bound::Here))
        .collect();
    let named = match &rule.destinations {
        Some(list) => &list[..],
        None if crosses => &place.to.prefixes[..],
        None => &[],
    };
    for prefix in named {
        if prefix.v6 == source.is_ipv4() {
            continue;
        }
        let Some(address) = somebody_or_group(*prefix, node) else {
            continue;
        };
        let bound = if address.is_multicast() {
            Bound::Here
        } else if node.has(address) {
            continue;
        } else {
            Bound::Through(node.link(address).map(str::to_owned))
        };
        found.push((address, bound));
    }
    found
}

fn somebody_or_group(prefix: Prefix, node: &Node) -> Option<IpAddr> {
    let first = prefix.address();
    if first.is_multicast() {
        return Some(first);
    }
    somebody(prefix.v6, prefix.bits, prefix.last(), node)
}

/// Protocol, port and type for each kind of service; `false`: not of all.
fn services(service: &Service, ruleset: &Ruleset) -> (Vec<(u8, u16, u8)>, bool) {
    let protocols = match &service.protocols[..] {
        // One that no rule names stands for the rest: 253 is for tests
        // (RFC 3692).
        [] => &[TCP, UDP, ICMP, ICMPV6, 47, 50, 112, 253],
        some => some,
    };
    let mut found = Vec::new();
    let mut complete = true;
    for protocol in protocols {
        let all = [(1, u16::MAX)];
        match (&service.narrow, *protocol) {
            // Parts are put together before rules see them, where conntrack is.
            (Narrow::Later, _) => {}
            (Narrow::Ports(ports), TCP | UDP) => {
                complete &= of_ports(*protocol, ports, &ruleset.numbers, &mut found);
            }
            (_, TCP | UDP) => complete &= of_ports(*protocol, &all, &ruleset.numbers, &mut found),
            (Narrow::Types(types), _) => {
                found.extend(types.iter().map(|kind| (*protocol, 0, *kind)));
            }
            // Questions: answers pass by their flow.
            (_, ICMP) => found.push((ICMP, 0, 8)),
            (_, ICMPV6) => found.push((ICMPV6, 0, 128)),
            _ => found.push((*protocol, 0, 0)),
        }
    }
    (found, complete)
}

fn of_ports(
    protocol: u8,
    ports: &[(u16, u16)],
    cuts: &BTreeSet<u64>,
    found: &mut Vec<(u8, u16, u8)>,
) -> bool {
    for (from, to) in ports {
        let inner = cuts.range((Excluded(u64::from(*from)), Included(u64::from(*to))));
        let inner = inner.filter_map(|cut| u16::try_from(*cut).ok());
        for port in [*from].into_iter().chain(inner) {
            if found.len() >= KINDS {
                return false;
            }
            found.push((protocol, port, 0));
        }
    }
    true
}
