//! What a verdict should be: slow and obvious. It walks the rules in the order
//! of the file, and shares no code with the compiler or the kernel's programs
//! but the types.

use std::net::IpAddr;

use kldtrace::planes::policy::{Narrow, Plane, Policy, Prefix, Rule};
use kldtrace_abi::plane::{Action, Fragment, Reason, service::Always};

use super::packet::Packet;

/// A verdict, with the place and name of the rule that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub action: Action,
    pub reason: Reason,
    pub rule: Option<(String, String)>,
}

/// Judges a first packet: no flow is known and nobody has sent too much.
pub fn judge(policy: &Policy, on: usize, packet: &Packet) -> Expected {
    let plane = &policy.planes[on];
    let (pass, reason, rule) = decide(policy, on, plane, packet);
    let action = match (pass, plane.enforce) {
        (true, _) => Action::Pass,
        (false, true) => Action::Drop,
        (false, false) => Action::WouldDrop,
    };
    Expected {
        action,
        reason,
        rule,
    }
}

type Decision = (bool, Reason, Option<(String, String)>);

fn decide(policy: &Policy, on: usize, plane: &Plane, packet: &Packet) -> Decision {
    if plane.whole_only && packet.part != Fragment::Whole {
        return (false, Reason::Fragment, None);
    }
    let guarded = plane.wireguard.as_ref().filter(|guard| {
        packet.protocol == 17
            && packet.has_ports()
            && guard.ports.contains(&packet.destination_port)
    });
    if guarded.is_some() && !is_wireguard(packet) {
        return (false, Reason::WireGuard, None);
    }
    let from = plane_of(policy, packet.source).unwrap_or(on);
    let to = plane_of(policy, packet.destination).unwrap_or(on);
    let passes = |one| plane.always.contains(&one) && (to == on || one == Always::PathMtu);
    if always(packet).is_some_and(passes) {
        return (true, Reason::Always, None);
    }
    let spared = policy.floor.as_ref().is_some_and(|floor| {
        floor.plane == on && floor.sources.iter().any(|one| holds(one, packet.source))
    });
    for set in plane.block.iter().map(|number| &policy.sets[*number]) {
        if !spared && set.prefixes.iter().any(|one| holds(one, packet.source)) {
            let rule = (plane.name.clone(), set.name.clone());
            return (false, Reason::Blocked, Some(rule));
        }
    }
    if from == on && to == on {
        let here = plane.name.clone();
        if let Some(floor) = policy.floor.as_ref().filter(|floor| floor.plane == on) {
            let port = |(from, to): &(u16, u16)| (*from..=*to).contains(&packet.destination_port);
            let in_it = spared && packet.protocol == 6 && packet.has_ports();
            if in_it && floor.ports.iter().any(port) {
                return (true, Reason::Floor, Some((here, "floor".to_owned())));
            }
        }
        let guard = plane.wireguard.iter().map(|guard| &guard.rule);
        return first(guard.chain(&plane.rules), packet, here, plane.pass);
    }
    let mut accepted = policy
        .crosses
        .iter()
        .filter(|cross| (cross.from, cross.to) == (from, to))
        .filter(|cross| (on == from && cross.at_from) || (on == to && cross.at_to))
        .peekable();
    if accepted.peek().is_none() {
        return (false, Reason::Cross, None);
    }
    let crossing = format!("{} > {}", policy.planes[from].name, policy.planes[to].name);
    first(accepted.map(|cross| &cross.rule), packet, crossing, false)
}

/// Whether it carries a message of WireGuard: types and lengths of its
/// whitepaper, 5.4.
fn is_wireguard(packet: &Packet) -> bool {
    packet.datagram.is_some_and(|(word, length)| match word {
        1 => length == 148,
        2 => length == 92,
        3 => length == 64,
        4 => length >= 32,
        _ => false,
    })
}

fn first<'a>(
    rules: impl Iterator<Item = &'a Rule>,
    packet: &Packet,
    place: String,
    pass: bool,
) -> Decision {
    for rule in rules {
        if matches(rule, packet) {
            return (rule.pass, Reason::Rule, Some((place, rule.name.clone())));
        }
    }
    (pass, Reason::Default, Some((place, String::new())))
}

fn matches(rule: &Rule, packet: &Packet) -> bool {
    let within = |list: &Option<Vec<Prefix>>, address| {
        let any = |list: &Vec<Prefix>| list.iter().any(|prefix| holds(prefix, address));
        list.as_ref().is_none_or(any)
    };
    let protocols = &rule.service.protocols;
    within(&rule.sources, packet.source)
        && within(&rule.destinations, packet.destination)
        && (protocols.is_empty() || protocols.contains(&packet.protocol))
        && match &rule.service.narrow {
            Narrow::All => true,
            Narrow::Ports(ports) => {
                packet.has_ports()
                    && ports
                        .iter()
                        .any(|(from, to)| (*from..=*to).contains(&packet.destination_port))
            }
            Narrow::Types(types) => packet.is_icmp() && types.contains(&packet.icmp.0),
            Narrow::Later => packet.part == Fragment::Later,
        }
}

/// What passes on each plane: from the same RFCs, written down once more.
fn always(packet: &Packet) -> Option<Always> {
    if packet.part == Fragment::Later {
        return None;
    }
    match (packet.protocol, packet.source.is_ipv4()) {
        (1, true) if packet.icmp == (3, 4) => Some(Always::PathMtu),
        (58, false) => match packet.icmp.0 {
            2 => Some(Always::PathMtu),
            130..=132 | 143 => Some(Always::Multicast),
            133..=137 => Some(Always::Neighbours),
            _ => None,
        },
        (2, _) => Some(Always::Multicast),
        (17, _) if [68, 546].contains(&packet.destination_port) => Some(Always::Dhcp),
        _ => None,
    }
}

/// The plane whose prefix around an address is the longest, of those that are
/// longer than any that belongs to no plane.
fn plane_of(policy: &Policy, address: IpAddr) -> Option<usize> {
    let nowhere = Prefix::NOWHERE.iter().map(|prefix| (None, prefix));
    let mut best: Option<(Option<usize>, &Prefix)> = None;
    let planes = policy.planes.iter().enumerate();
    let planes = planes.flat_map(|(n, plane)| plane.prefixes.iter().map(move |p| (Some(n), p)));
    // Of two alike the first counts: a plane that names it before nobody.
    for (plane, prefix) in planes.chain(nowhere) {
        let longer = best.is_none_or(|(_, other)| prefix.length > other.length);
        if holds(prefix, address) && longer {
            best = Some((plane, prefix));
        }
    }
    best?.0
}

/// Bit by bit.
fn holds(prefix: &Prefix, address: IpAddr) -> bool {
    let alike = |one: &[u8], other: &[u8]| {
        let bit = |bytes: &[u8], place: usize| bytes[place / 8] >> (7 - place % 8) & 1;
        (0..usize::from(prefix.length)).all(|place| bit(one, place) == bit(other, place))
    };
    match (prefix.address(), address) {
        (IpAddr::V4(one), IpAddr::V4(other)) => alike(&one.octets(), &other.octets()),
        (IpAddr::V6(one), IpAddr::V6(other)) => alike(&one.octets(), &other.octets()),
        _ => false,
    }
}
