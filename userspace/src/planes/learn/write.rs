//! Rules as TOML.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
};

use super::{
    Learned, Tally,
    group::{Group, Service, Source, Way, What},
};
use crate::planes::{
    compile::{ICMP, ICMPV6},
    policy::{Policy, Prefix},
    read::value::{ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS},
};

/// Lines of comment that say what was seen of a rule.
const LINES: usize = 12;

/// What rules have in common that become one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    way: Way,
    protocol: u8,
    kind: Kind,
    to: Option<Prefix>,
    sources: BTreeSet<Source>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Ports,
    Types,
    Later,
    All,
}

/// One rule for all services that come from the same sources.
pub fn rules(policy: &Policy, groups: &HashMap<Group, Tally>) -> Vec<Learned> {
    let mut services: BTreeMap<&Service, BTreeMap<Source, &Tally>> = BTreeMap::new();
    for (group, tally) in groups {
        let sources = services.entry(&group.service).or_default();
        sources.insert(group.source, tally);
    }
    let mut alike: BTreeMap<Alike, Vec<(What, Vec<&Tally>)>> = BTreeMap::new();
    for (service, sources) in services {
        let key = Alike {
            way: service.way,
            protocol: service.protocol,
            kind: match service.what {
                What::Port(_) => Kind::Ports,
                What::Type(_) => Kind::Types,
                What::Later => Kind::Later,
                What::All => Kind::All,
            },
            to: service.to,
            sources: widest(sources.keys().copied()),
        };
        let tallies = sources.into_values().collect();
        alike.entry(key).or_default().push((service.what, tallies));
    }
    let mut names = Names::new(policy);
    alike
        .iter()
        .map(|(alike, seen)| rule(policy, alike, seen, &mut names))
        .collect()
}

/// Without what lies in another.
fn widest(sources: impl Iterator<Item = Source>) -> BTreeSet<Source> {
    let all: Vec<_> = sources.collect();
    let within = |one: &Source| {
        let Source::Prefix(one) = one else {
            return false;
        };
        all.iter().any(|other| match other {
            Source::Prefix(other) => other != one && other.contains(*one),
            Source::Plane => false,
        })
    };
    all.iter().filter(|one| !within(one)).copied().collect()
}

/// Names that rules have, by the plane or among what crosses.
struct Names(BTreeSet<(Option<usize>, String)>);

impl Names {
    fn new(policy: &Policy) -> Self {
        let planes = policy.planes.iter().enumerate();
        let own = planes.flat_map(|(place, plane)| {
            let rules = plane.rules.iter();
            rules.map(move |rule| (Some(place), rule.name.clone()))
        });
        let crosses = policy.crosses.iter();
        let crosses = crosses.map(|cross| (None, cross.rule.name.clone()));
        Self(own.chain(crosses).collect())
    }

    /// One that nobody has yet.
    fn free(&mut self, place: Option<usize>, wish: &str) -> String {
        let numbered = (2..).map(|number: u32| format!("{wish}-{number}"));
        let mut all = [wish.to_owned()].into_iter().chain(numbered);
        let free = all.find(|name| self.0.insert((place, name.clone())));
        free.unwrap_or_default()
    }
}

fn rule(
    policy: &Policy,
    alike: &Alike,
    seen: &[(What, Vec<&Tally>)],
    names: &mut Names,
) -> Learned {
    let way = alike.way;
    let from = &policy.planes[way.from].name;
    let protocol = protocol(alike.protocol);
    let wish = match (&seen[0].0, seen.len()) {
        (What::Port(port), 1) => format!("learned-{protocol}-{port}"),
        (What::Type(kind), 1) => {
            let kind = kind_name(alike.protocol, *kind);
            format!("learned-{protocol}-{kind}")
        }
        (What::Later, _) => format!("learned-{protocol}-parts"),
        _ => format!("learned-{protocol}"),
    };
    let place = (!way.crosses()).then_some(way.on);
    let name = names.free(place, &wish);
    let mut toml = comments(alike.protocol, seen);
    let cross = way.crosses().then(|| {
        let at = if way.on == way.from { "from" } else { "to" };
        (policy.planes[way.to].name.clone(), at)
    });
    match &cross {
        Some((to, at)) => {
            let (from, to) = (quoted(from), quoted(to));
            let name = quoted(&name);
            let _ = writeln!(
                toml,
                "[[cross]]\nname = {name}\nfrom = {from}\nto = {to}\nat = \"{at}\""
            );
        }
        None => {
            let name = quoted(&name);
            let _ = writeln!(toml, "[[plane.rule]]\nname = {name}\nverdict = \"allow\"");
        }
    }
    let _ = match protocol.parse::<u8>() {
        Ok(number) => writeln!(toml, "protocol = {number}"),
        Err(_) => writeln!(toml, "protocol = {}", quoted(&protocol)),
    };
    narrow(&mut toml, alike.protocol, seen);
    let sources = alike.sources.iter().map(|source| match source {
        Source::Plane => quoted(&format!("@{from}")),
        Source::Prefix(prefix) => quoted(&prefix.to_string()),
    });
    let sources: Vec<_> = sources.collect();
    let _ = writeln!(toml, "sources = [{}]", sources.join(", "));
    if let Some(to) = alike.to {
        let _ = writeln!(toml, "destinations = [{}]", quoted(&to.to_string()));
    }
    let all = || seen.iter().flat_map(|(_, tallies)| tallies);
    Learned {
        plane: from.clone(),
        cross,
        name,
        packets: all().map(|tally| tally.packets).sum(),
        bytes: all().map(|tally| tally.bytes).sum(),
        toml,
    }
}

/// What was seen of a rule.
fn comments(protocol: u8, seen: &[(What, Vec<&Tally>)]) -> String {
    let mut text = String::new();
    for (what, tallies) in seen.iter().take(LINES) {
        let packets: u64 = tallies.iter().map(|tally| tally.packets).sum();
        let sources = match tallies.len() {
            1 => String::new(),
            more => format!(" from {more} sources"),
        };
        let what = match what {
            What::Port(port) => format!("port {port}: "),
            What::Type(kind) => format!("{}: ", kind_name(protocol, *kind)),
            What::Later | What::All => String::new(),
        };
        let examples = tallies.iter().flat_map(|tally| &tally.examples);
        let examples: Vec<_> = examples.take(2).map(String::as_str).collect();
        let _ = writeln!(
            text,
            "# {what}{packets} packets{sources}, such as {}",
            examples.join(", ")
        );
        if !tallies.iter().any(|tally| tally.begins) {
            text += "# (none of them began a connection: perhaps it was there before)\n";
        }
    }
    if seen.len() > LINES {
        let more = seen.len() - LINES;
        let _ = writeln!(text, "# and {more} more");
    }
    text
}

fn narrow(toml: &mut String, protocol: u8, seen: &[(What, Vec<&Tally>)]) {
    let ports = seen.iter().filter_map(|(what, _)| match what {
        What::Port(port) => Some(*port),
        _ => None,
    });
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(port) => *last = port,
            _ => runs.push((port, port)),
        }
    }
    let types = seen.iter().filter_map(|(what, _)| match what {
        What::Type(kind) => Some(kind_value(protocol, *kind)),
        _ => None,
    });
    let types: Vec<_> = types.collect();
    if !runs.is_empty() {
        let runs = runs.iter().map(|(from, to)| {
            if from == to {
                from.to_string()
            } else {
                format!("\"{from}-{to}\"")
            }
        });
        let runs: Vec<_> = runs.collect();
        let _ = writeln!(toml, "ports = [{}]", runs.join(", "));
    } else if !types.is_empty() {
        let _ = writeln!(toml, "icmp = [{}]", types.join(", "));
    } else if matches!(seen[0].0, What::Later) {
        *toml += "fragments = \"later\"\n";
    }
}

/// A protocol's name, or its number.
fn protocol(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(_, one)| *one == number);
    known.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}

fn kind_name(protocol: u8, kind: u8) -> String {
    let types: &[(&str, u8)] = match protocol {
        ICMP => &ICMP_TYPES,
        ICMPV6 => &ICMPV6_TYPES,
        _ => &[],
    };
    let known = types.iter().find(|(_, one)| *one == kind);
    known.map_or_else(|| kind.to_string(), |(name, _)| (*name).to_owned())
}

fn kind_value(protocol: u8, kind: u8) -> String {
    let name = kind_name(protocol, kind);
    match name.parse::<u8>() {
        Ok(_) => name,
        Err(_) => quoted(&name),
    }
}

/// A text of TOML. Its escapes are those of JSON, but for the control
/// characters that names of a policy do not have.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
