//! From protocols and ports to classes.

use std::{collections::HashMap, ops::Range};

use kldtrace_abi::plane::service::{
    Always, ENTRIES, ICMP_TOO_BIG, ICMP_TYPES, ICMPV6_TYPES, LATER, PROTOCOLS, Service as Entry,
    UDP_PORTS,
};

use super::{TooLarge, refine::refine};
use crate::planes::policy::{Narrow, Service};

/// Numbers of protocols: IANA, protocol-numbers.
pub const ICMP: u8 = 1;
/// TCP.
pub const TCP: u8 = 6;
/// UDP.
pub const UDP: u8 = 17;
/// ICMPv6.
pub const ICMPV6: u8 = 58;

/// What rules ask of protocol and port, each kept once.
#[derive(Default)]
pub struct Selectors<'a> {
    lists: Vec<&'a Service>,
    known: HashMap<&'a Service, usize>,
}

impl<'a> Selectors<'a> {
    /// The number of what a rule asks for.
    pub fn number(&mut self, service: &'a Service) -> usize {
        *self.known.entry(service).or_insert_with(|| {
            self.lists.push(service);
            self.lists.len() - 1
        })
    }
}

/// The classes of services.
pub struct Services {
    /// The array, [`ENTRIES`] of it.
    pub entries: Vec<u32>,
    /// What each selector covers, as it stands in keys: classes of ports, or
    /// of protocols where it asks for nothing else.
    pub covered: Vec<Vec<u32>>,
    /// The pairs of classes that occur, with the families that can have them
    /// (1: IPv4, 2: IPv6), sorted.
    pub pairs: Vec<(u32, u32, u8)>,
}

impl Services {
    /// Finds the classes.
    pub fn new(selectors: &Selectors<'_>) -> Result<Self, TooLarge> {
        let narrow: Vec<_> = selectors
            .lists
            .iter()
            .map(|service| entries_of(service))
            .collect();
        let mut cuts: Vec<u32> = narrow
            .iter()
            .flatten()
            .flat_map(|r| [r.start, r.end])
            .collect();
        cuts.extend([0, ENTRIES]);
        cuts.sort_unstable();
        cuts.dedup();
        let place = |entry: u32| cuts.partition_point(|cut| *cut < entry);
        let ranges = narrow.iter().map(|ranges| {
            let segments = ranges
                .iter()
                .map(|range| place(range.start)..place(range.end));
            segments.collect::<Vec<_>>()
        });
        let ranges: Vec<_> = ranges.collect();
        let ports = refine(cuts.len() - 1, &ranges).ok_or(TooLarge::Services)?;
        if ports.count > Entry::CLASSES {
            return Err(TooLarge::Services);
        }
        let whole: Vec<_> = selectors
            .lists
            .iter()
            .map(|service| protocols_of(service))
            .collect();
        let protocols = refine(256, &whole).ok_or(TooLarge::Services)?;
        if protocols.count > 256 {
            return Err(TooLarge::Services);
        }
        let mut entries = Vec::with_capacity(ENTRIES as usize);
        for (segment, cut) in cuts.windows(2).enumerate() {
            entries.extend((cut[0]..cut[1]).map(|number| {
                let protocol = protocols.of[usize::from(protocol_of(number))];
                let always = Always::of(number).map_or(0, |always| always as u8);
                Entry::new(ports.of[segment], protocol as u8, always).0
            }));
        }
        let covered = (0..selectors.lists.len()).map(|number| {
            let classes = &protocols.covered[number];
            if narrow[number].is_empty() {
                let keyed = |class: &u32| Entry::new(0, *class as u8, 0).protocol();
                return classes.iter().map(keyed).collect();
            }
            ports.covered[number].clone()
        });
        Ok(Self {
            covered: covered.collect(),
            pairs: pairs(&entries),
            entries,
        })
    }
}

fn pairs(entries: &[u32]) -> Vec<(u32, u32, u8)> {
    let mut pairs = HashMap::new();
    // Entries are alike over long ranges.
    let mut last = (0, 0);
    for (number, entry) in entries.iter().enumerate() {
        let entry = Entry(*entry);
        let families = match number as u32 {
            ICMP_TYPES..ICMPV6_TYPES => 1,
            ICMPV6_TYPES..PROTOCOLS => 2,
            _ => 3,
        };
        if last != (entry.0, families) {
            last = (entry.0, families);
            *pairs.entry((entry.class(), entry.protocol())).or_insert(0) |= families;
        }
    }
    let pairs = pairs.into_iter();
    let mut pairs: Vec<_> = pairs.map(|((c, p), families)| (c, p, families)).collect();
    pairs.sort_unstable();
    pairs
}

/// The protocol that an entry is of.
fn protocol_of(entry: u32) -> u8 {
    match entry {
        0..UDP_PORTS => TCP,
        UDP_PORTS..ICMP_TYPES => UDP,
        ICMP_TYPES..ICMPV6_TYPES => ICMP,
        ICMPV6_TYPES..PROTOCOLS => ICMPV6,
        PROTOCOLS..LATER => (entry - PROTOCOLS) as u8,
        _ => (entry - LATER) as u8,
    }
}

/// The protocols of what asks for nothing narrower, as ranges.
fn protocols_of(service: &Service) -> Vec<Range<usize>> {
    if service.narrow != Narrow::All {
        return Vec::new();
    }
    if service.protocols.is_empty() {
        return vec![Range { start: 0, end: 256 }];
    }
    let mut protocols = service.protocols.clone();
    protocols.sort_unstable();
    protocols.dedup();
    let one = |protocol: &u8| usize::from(*protocol)..usize::from(*protocol) + 1;
    protocols.iter().map(one).collect()
}

/// The entries of what asks for ports, types or parts: disjoint ranges.
fn entries_of(service: &Service) -> Vec<Range<u32>> {
    let has = |protocol: u8| service.protocols.contains(&protocol);
    let mut ranges = Vec::new();
    match &service.narrow {
        Narrow::All => {}
        Narrow::Ports(ports) => {
            for (protocol, first) in [(TCP, 0), (UDP, UDP_PORTS)] {
                if has(protocol) {
                    let range = |(from, to): &(u16, u16)| {
                        first + u32::from(*from)..first + u32::from(*to) + 1
                    };
                    ranges.extend(ports.iter().map(range));
                }
            }
        }
        Narrow::Types(types) => {
            for (protocol, first) in [(ICMP, ICMP_TYPES), (ICMPV6, ICMPV6_TYPES)] {
                if has(protocol) {
                    let one = |kind: &u8| first + u32::from(*kind)..first + u32::from(*kind) + 1;
                    ranges.extend(types.iter().map(one));
                }
            }
            if has(ICMP) && types.contains(&3) {
                ranges.push(ICMP_TOO_BIG..ICMP_TOO_BIG + 1);
            }
        }
        Narrow::Later if service.protocols.is_empty() => ranges.push(LATER..ENTRIES),
        Narrow::Later => {
            let one = |protocol: &u8| {
                let entry = LATER + u32::from(*protocol);
                entry..entry + 1
            };
            ranges.extend(service.protocols.iter().map(one));
        }
    }
    disjoint(ranges)
}

fn disjoint(mut ranges: Vec<Range<u32>>) -> Vec<Range<u32>> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u32>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}
