//! Packets as people write them, and verdicts as people read them.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use kldtrace_abi::plane::{
    Action, Address, Facts, Family, Fragment, Malformed, Message, Outcome, Reason, service::Always,
};

use super::{
    compile::{Compiled, ICMP, ICMPV6, TCP, UDP},
    policy,
    read::value::{ICMP_TYPES, ICMPV6_TYPES, PROTOCOLS},
};

/// Reads a packet such as `tcp 10.252.0.9:4000 > 10.251.0.2:2049`,
/// `icmp 10.0.0.1 > 10.0.0.2 echo-request` or `udp 10.0.0.1 > 10.0.0.2 later`.
/// TCP begins a connection unless `ack` stands at the end; with UDP a message
/// of WireGuard may: `initiation`, `response`, `cookie` or `data`.
///
/// # Errors
/// The sentence for the person who wrote it.
pub fn packet(text: &str) -> Result<Facts, String> {
    const FORM: &str = "write it as 'tcp 10.252.0.9:4000 > 10.251.0.2:2049', \
                        'icmp 10.0.0.1 > 10.0.0.2 echo-request' or \
                        'udp 10.0.0.1 > 10.0.0.2 later'";
    let words: Vec<&str> = text.split_whitespace().collect();
    let [protocol, source, ">", destination, rest @ ..] = &words[..] else {
        return Err(format!("{text:?} is no packet: {FORM}"));
    };
    let known = PROTOCOLS.iter().find(|(name, _)| name == protocol);
    let number = known
        .map(|(_, number)| *number)
        .or_else(|| protocol.parse().ok());
    let Some(protocol) = number else {
        return Err(format!("unknown protocol {protocol:?}: {FORM}"));
    };
    let end = |text: &str| address(text).ok_or_else(|| format!("{text:?} is no address: {FORM}"));
    let ((from, from_port), (to, to_port)) = (end(source)?, end(destination)?);
    if from.is_ipv4() != to.is_ipv4() {
        return Err("the addresses are not of one family".to_owned());
    }
    let mut facts = Facts {
        source: policy::address(from),
        destination: policy::address(to),
        length: 60,
        source_port: from_port.unwrap_or(0),
        destination_port: to_port.unwrap_or(0),
        family: if from.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        },
        protocol,
        tcp_flags: if protocol == TCP { 0x02 } else { 0 },
        ..Facts::default()
    };
    for word in rest {
        detail(word, &mut facts).ok_or_else(|| format!("unknown {word:?} at the end: {FORM}"))?;
    }
    let ports = from_port.is_some() || to_port.is_some();
    let has_ports = matches!(protocol, TCP | UDP) && facts.fragment != Fragment::Later;
    if has_ports != ports || (has_ports && to_port.is_none()) {
        let needs = if has_ports { "needs" } else { "has no" };
        return Err(format!("such a packet {needs} ports: {FORM}"));
    }
    Ok(facts)
}

/// Messages of WireGuard by name.
const MESSAGES: [(&str, Message); 4] = [
    ("initiation", Message::Initiation),
    ("response", Message::Response),
    ("cookie", Message::Cookie),
    ("data", Message::Data),
];

fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some((address.ip(), Some(address.port())));
    }
    text.parse().ok().map(|address| (address, None))
}

fn detail(word: &str, facts: &mut Facts) -> Option<()> {
    let types: &[(&str, u8)] = match (facts.protocol, facts.family) {
        (ICMP, Family::V4) => &ICMP_TYPES,
        (ICMPV6, Family::V6) => &ICMPV6_TYPES,
        (UDP, _) if !matches!(word, "first" | "later") => {
            let known = MESSAGES.iter().find(|(name, _)| *name == word);
            facts.message = known.map(|(_, message)| *message)?;
            return Some(());
        }
        (TCP, _) if word == "ack" => {
            facts.tcp_flags = 0x10;
            return Some(());
        }
        _ => &[],
    };
    match word {
        "first" => facts.fragment = Fragment::First,
        "later" => {
            facts.fragment = Fragment::Later;
            facts.tcp_flags = 0;
        }
        _ if matches!(facts.protocol, ICMP | ICMPV6) => {
            let (kind, code) = word.split_once('/').unwrap_or((word, "0"));
            let known = types.iter().find(|(name, _)| *name == kind);
            let known = known.map(|(_, number)| *number);
            facts.icmp_type = known.or_else(|| kind.parse().ok())?;
            facts.icmp_code = code.parse().ok()?;
        }
        _ => return None,
    }
    Some(())
}

/// A packet as [`packet`] reads it: what it does not write, such as a length, is
/// not in it. Neither IP nor ARP, it has no addresses.
pub fn words(facts: &Facts) -> String {
    let v6 = match facts.family {
        Family::V4 => false,
        Family::V6 => true,
        Family::Arp => return "arp".to_owned(),
        Family::Other => return "a frame without IP".to_owned(),
    };
    let known = PROTOCOLS.iter().find(|(_, one)| *one == facts.protocol);
    let mut text = known.map_or_else(
        || facts.protocol.to_string(),
        |(name, _)| (*name).to_owned(),
    );
    let ports = matches!(facts.protocol, TCP | UDP) && facts.fragment != Fragment::Later;
    let end = |address: Address, port: u16| {
        let address = policy::ip(address, v6);
        if ports {
            SocketAddr::new(address, port).to_string()
        } else {
            address.to_string()
        }
    };
    let source = end(facts.source, facts.source_port);
    let destination = end(facts.destination, facts.destination_port);
    let _ = write!(text, " {source} > {destination}");
    match facts.fragment {
        Fragment::Whole => {}
        Fragment::First => text += " first",
        Fragment::Later => return text + " later",
    }
    let types: &[(&str, u8)] = match (facts.protocol, facts.family) {
        (ICMP, Family::V4) => &ICMP_TYPES,
        (ICMPV6, Family::V6) => &ICMPV6_TYPES,
        (ICMP | ICMPV6, _) => &[],
        (TCP, _) if facts.tcp_flags & 0x10 != 0 => return text + " ack",
        _ => return text,
    };
    let known = types.iter().find(|(_, one)| *one == facts.icmp_type);
    let _ = match known {
        Some((name, _)) => write!(text, " {name}"),
        None => write!(text, " {}", facts.icmp_type),
    };
    if facts.icmp_code != 0 {
        let _ = write!(text, "/{}", facts.icmp_code);
    }
    text
}

/// A verdict in words, as `drop: no rule matches (default of storage, line 12)`.
pub fn told(outcome: &Outcome, compiled: &Compiled) -> String {
    let mut text = match outcome.action {
        Action::Pass => "pass: ",
        Action::Drop => "drop: ",
        Action::WouldDrop => "pass, in audit mode; would drop: ",
    }
    .to_owned();
    text += match outcome.reason {
        Reason::Default => "no rule matches",
        Reason::Rule => "a rule matches",
        Reason::Floor => "the management floor",
        Reason::Established => "of a flow that is known",
        Reason::Always => "always passes",
        Reason::Malformed => "malformed",
        Reason::NotIp => "neither IP nor ARP",
        Reason::Fragment => "a part of a datagram, of which the plane takes none",
        Reason::Blocked => "its source is on a block list",
        Reason::Cross => "from one plane to another, and no [[cross]] is for these two here",
        Reason::Rate => "its source sends too many",
        Reason::NoPlane => "the policy has no such plane",
        Reason::Image => "the image is damaged",
        Reason::WireGuard => "to a port of WireGuard, and none of its messages",
    };
    match outcome.reason {
        Reason::Always => {
            let which = Always::ALL.iter().find(|one| **one as u8 == outcome.detail);
            let _ = write!(text, " ({})", which.map_or("", |one| one.as_str()));
        }
        Reason::Malformed => {
            let which = Malformed::ALL
                .iter()
                .find(|one| **one as u8 == outcome.detail);
            let _ = write!(text, " ({})", which.map_or("", |one| one.as_str()));
        }
        _ => {}
    }
    if let Some(rule) = compiled.rule(outcome.rule) {
        let name = match rule.reason {
            Reason::Default => format!("default of {}", rule.place),
            Reason::Blocked => format!("@{} of {}", rule.name, rule.place),
            _ => format!("{:?} of {}", rule.name, rule.place),
        };
        let _ = write!(text, " ({name}, line {})", rule.line);
    }
    text
}
