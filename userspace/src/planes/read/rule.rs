//! Reads rules.

use std::collections::HashSet;

use kldtrace_abi::plane::{Rate, image::WIREGUARD_PORTS};

use super::{
    table::{Table, Value, number},
    value,
};
use crate::planes::{
    compile::{ICMP, ICMPV6, TCP, UDP},
    policy::{Narrow, Prefix, Rule, Service, Set, WireGuard},
};

/// Initiations from one source where a policy does not say: 20 a second, as
/// WireGuard itself allows under load (drivers/net/wireguard/ratelimiter.c).
const INITIATIONS: Rate = Rate {
    interval: 50_000_000,
    early: 19 * 50_000_000,
};

/// What rules may name.
pub struct Known<'a> {
    /// The sets.
    pub sets: &'a [Set],
    /// Names of planes.
    pub names: &'a [String],
    /// Prefixes of planes, by the same index.
    pub prefixes: &'a [Vec<Prefix>],
}

impl Known<'_> {
    /// The prefixes of a set or plane.
    pub fn prefixes(&self, name: &str) -> Option<&[Prefix]> {
        if let Some(set) = self.sets.iter().find(|set| set.name == name) {
            return Some(&set.prefixes);
        }
        let plane = self.names.iter().position(|plane| plane == name)?;
        Some(&self.prefixes[plane])
    }
}

/// The plane that a key names.
pub fn plane(table: &Table<'_, '_>, key: &str, known: &Known<'_>) -> Option<usize> {
    let words = known.names.iter().enumerate();
    let words: Vec<_> = words.map(|(place, name)| (name.as_str(), place)).collect();
    if table.get(key).is_none() {
        table.fault(
            table.offset,
            format!("{key} is missing: the name of a plane"),
        );
    }
    table.word(key, &words)
}

/// The block lists of a plane.
pub fn block(table: &Table<'_, '_>, known: &Known<'_>) -> Vec<usize> {
    let words = known.sets.iter().enumerate();
    let words: Vec<_> = words
        .map(|(place, set)| (set.name.as_str(), place))
        .collect();
    table.words("block", &words).unwrap_or_default()
}

/// Says which names stand twice, or are `taken`: what is counted has a name of
/// its own.
pub fn unique_names(rules: &[Table<'_, '_>], taken: Option<&str>) {
    let mut names: HashSet<_> = taken.into_iter().collect();
    for rule in rules {
        let Some(value) = rule.get("name") else {
            continue;
        };
        let name = value.get_ref().as_str().unwrap_or_default();
        if !name.is_empty() && !names.insert(name) {
            rule.fault(value.span().start, format!("a second rule {name:?} here"));
        }
    }
}

/// A rule. `crosses`: what it does where it does not say; it may then name
/// planes.
pub fn rule(table: &Table<'_, '_>, known: &Known<'_>, crosses: Option<bool>) -> Rule {
    const KEYS: &[&str] = &[
        "name",
        "verdict",
        "protocol",
        "ports",
        "icmp",
        "fragments",
        "sources",
        "destinations",
        "rate",
        "burst",
    ];
    match crosses {
        None => table.only(KEYS),
        Some(_) => table.only(&[KEYS, &["from", "to", "at"]].concat()),
    }
    let verdict = table.word("verdict", &[("allow", true), ("drop", false)]);
    if table.get("verdict").is_none() && crosses.is_none() {
        let message = "a rule without a verdict: \"allow\" or \"drop\"";
        table.fault(table.offset, message.to_owned());
    }
    let pass = verdict.or(crosses).unwrap_or(false);
    let rate = table.rate("rate", "burst");
    if rate.limits() && !pass {
        let message = "a rate on a rule that drops: there is nothing to limit";
        table.fault(table.offset, message.to_owned());
    }
    Rule {
        name: table.name(),
        line: table.line(table.offset),
        pass,
        sources: prefixes(table, "sources", known),
        destinations: prefixes(table, "destinations", known),
        service: service(table),
        rate,
        initiations: false,
    }
}

/// The ports of WireGuard of a plane.
pub fn wireguard(plane: &Table<'_, '_>, known: &Known<'_>) -> Option<WireGuard> {
    let table = plane.table("wireguard", "[plane.wireguard]")?;
    table.only(&["ports", "sources", "rate", "burst"]);
    let given = table.ports("ports").unwrap_or_default();
    let single = given.iter().filter(|(from, to)| from == to && *from != 0);
    let ports: Vec<u16> = single.map(|(port, _)| *port).collect();
    if ports.len() != given.len() || !(1..=WIREGUARD_PORTS).contains(&ports.len()) {
        let message = format!("[plane.wireguard] needs 1 to {WIREGUARD_PORTS} ports, no ranges");
        table.fault(table.offset, message);
    }
    let rate = table.rate("rate", "burst");
    let rule = Rule {
        name: "wireguard".to_owned(),
        line: table.line(table.offset),
        pass: true,
        sources: prefixes(&table, "sources", known),
        destinations: None,
        service: Service {
            protocols: vec![UDP],
            narrow: Narrow::Ports(ports.iter().map(|port| (*port, *port)).collect()),
        },
        rate: if rate.limits() { rate } else { INITIATIONS },
        initiations: true,
    };
    Some(WireGuard { ports, rule })
}

fn prefixes(table: &Table<'_, '_>, key: &str, known: &Known<'_>) -> Option<Vec<Prefix>> {
    let prefixes = table.prefixes(key, &|name| known.prefixes(name))?;
    if prefixes.is_empty() {
        let message = format!("{key} has no prefixes: nothing would match; leave it out for any");
        table.fault(table.offset, message);
    }
    Some(prefixes)
}

fn service(table: &Table<'_, '_>) -> Service {
    let protocols = table.values("protocol").unwrap_or_default();
    let protocols: Vec<u8> = protocols
        .iter()
        .filter_map(|value| protocol(table, value))
        .collect();
    for key in ["protocol", "ports", "icmp"] {
        if table.values(key).is_some_and(|values| values.is_empty()) {
            let message = format!("{key} is empty: leave it out for any");
            table.fault(table.offset, message);
        }
    }
    let given = ["ports", "icmp", "fragments"].map(|key| table.get(key).is_some());
    if given.iter().filter(|given| **given).count() > 1 {
        let message = "only one of ports, icmp and fragments: no packet has two";
        table.fault(table.offset, message.to_owned());
    }
    let only =
        |allowed: &[u8]| !protocols.is_empty() && protocols.iter().all(|one| allowed.contains(one));
    let narrow = if let Some(ports) = table.ports("ports") {
        if !only(&[TCP, UDP]) {
            let message = "ports need protocol = \"tcp\", \"udp\" or both";
            table.fault(table.offset, message.to_owned());
        }
        Narrow::Ports(ports)
    } else if let Some(values) = table.values("icmp") {
        let names: &[(&str, u8)] = match protocols[..] {
            [ICMP] => &value::ICMP_TYPES,
            [ICMPV6] => &value::ICMPV6_TYPES,
            _ => {
                let message = "icmp needs protocol = \"icmp\" or \"icmpv6\"";
                table.fault(table.offset, message.to_owned());
                &[]
            }
        };
        let types: Vec<u8> = values
            .iter()
            .filter_map(|value| number_or_name(table, "icmp", value, names))
            .collect();
        Narrow::Types(types)
    } else if table.word("fragments", &[("later", ())]).is_some() {
        Narrow::Later
    } else {
        Narrow::All
    };
    Service { protocols, narrow }
}

fn protocol(table: &Table<'_, '_>, value: &Value<'_>) -> Option<u8> {
    number_or_name(table, "protocol", value, &value::PROTOCOLS)
}

fn number_or_name(
    table: &Table<'_, '_>,
    key: &str,
    value: &Value<'_>,
    names: &[(&str, u8)],
) -> Option<u8> {
    let number = number(value).and_then(|number| u8::try_from(number).ok());
    number.or_else(|| table.one_of(key, value, names))
}
