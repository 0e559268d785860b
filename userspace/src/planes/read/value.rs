//! Values as people write them.

use std::net::{IpAddr, Ipv6Addr};

use kldtrace_abi::plane::Rate;

use crate::planes::policy::Prefix;

/// A prefix such as `10.0.0.0/24` or `fd00::1`.
///
/// # Errors
/// The end of a sentence that begins with what was asked for.
pub fn prefix(text: &str) -> Result<Prefix, String> {
    let wrong = || {
        let shown: String = text.chars().take(80).collect();
        format!("must be a prefix such as \"10.0.0.0/24\", not {shown:?}")
    };
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        None => most,
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|length| *length <= most && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(wrong)?,
    };
    let prefix = Prefix::new(address, length);
    if prefix.address() != address {
        return Err(format!(
            "has bits behind its length: write {:?}, not {text:?}",
            prefix.to_string()
        ));
    }
    if address.is_ipv6() && prefix.length >= 96 && is_mapped(prefix) {
        return Err(format!(
            "is an IPv4 address in IPv6, which no packet has: {text:?}"
        ));
    }
    Ok(prefix)
}

fn is_mapped(prefix: Prefix) -> bool {
    Ipv6Addr::from_bits(prefix.bits).to_ipv4_mapped().is_some()
}

/// A file of prefixes: the line of the first error, and what it is.
///
/// # Errors
/// For the first line that is no prefix.
pub fn list(text: &str) -> Result<Vec<Prefix>, String> {
    let mut prefixes = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let end = line.find(['#', ';']).unwrap_or(line.len());
        let line = line[..end].trim();
        if !line.is_empty() {
            let one = prefix(line).map_err(|error| format!("{}: {error}", number + 1))?;
            prefixes.push(one);
        }
    }
    prefixes.sort_unstable();
    prefixes.dedup();
    Ok(prefixes)
}

/// A port or a range such as `8000-8100`.
pub fn ports(text: &str) -> Option<(u16, u16)> {
    let digits = |text: &str| {
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let (from, to) = (digits(from)?, digits(to)?);
    (from <= to).then_some((from, to))
}

/// A rate such as `100/s`, with how many may come at once.
pub fn rate(text: &str, burst: Option<u64>) -> Option<Rate> {
    let (count, unit) = text.split_once('/')?;
    let unit: u64 = match unit {
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    if !(1..=10_000_000).contains(&count) {
        return None;
    }
    let interval = unit / count;
    let early = interval * (burst.unwrap_or(count) - 1);
    Some(Rate { interval, early })
}

/// Protocols by name: IANA, protocol-numbers.
pub const PROTOCOLS: [(&str, u8); 15] = [
    ("icmp", 1),
    ("igmp", 2),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("eigrp", 88),
    ("ospf", 89),
    ("pim", 103),
    ("vrrp", 112),
    ("sctp", 132),
];

/// Types of ICMP by name: IANA, icmp-parameters.
pub const ICMP_TYPES: [(&str, u8); 9] = [
    ("echo-reply", 0),
    ("destination-unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("router-advertisement", 9),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

/// Types of ICMPv6 by name: IANA, icmpv6-parameters.
pub const ICMPV6_TYPES: [(&str, u8); 11] = [
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("router-solicitation", 133),
    ("router-advertisement", 134),
    ("neighbour-solicitation", 135),
    ("neighbour-advertisement", 136),
    ("redirect", 137),
];
