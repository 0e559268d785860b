//! Random policies as text, and random packets that touch them.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fastrand::Rng;
use kldtrace_abi::plane::{Fragment, Link};

use super::packet::Packet;

/// An address out of few, so that prefixes overlap and packets hit them.
fn address(rng: &mut Rng, v6: bool) -> IpAddr {
    const ENDS: [u8; 8] = [0, 1, 2, 9, 127, 128, 200, 255];
    let one = |rng: &mut Rng| ENDS[rng.usize(..ENDS.len())];
    if v6 {
        let mut octets = [0; 16];
        octets[0] = [0xfd, 0xfd, 0xfd, 0x20, 0xfe, 0xff][rng.usize(..6)];
        octets[1] = if octets[0] == 0xfe { 0x80 } else { rng.u8(..3) };
        octets[5] = rng.u8(..3);
        octets[7] = rng.u8(..4);
        octets[12] = rng.u8(..2) * 128;
        octets[15] = one(rng);
        return Ipv6Addr::from(octets).into();
    }
    let first = [10, 10, 10, 10, 192, 224, 169, 0, 255][rng.usize(..9)];
    let octets = match first {
        10 => [10, 248 + rng.u8(..8), rng.u8(..3), one(rng)],
        255 => [255; 4],
        0 => [0; 4],
        169 => [169, 254, rng.u8(..2), one(rng)],
        first => [first, rng.u8(..3), rng.u8(..2), one(rng)],
    };
    Ipv4Addr::from(octets).into()
}

fn prefix(rng: &mut Rng) -> String {
    let v6 = rng.bool();
    let address = address(rng, v6);
    let (bits, most) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let length = [rng.u8(..=most), most, most - 8, most / 2][rng.usize(..4)];
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    let bits = bits & mask;
    match address {
        IpAddr::V4(_) => format!("{}/{length}", Ipv4Addr::from_bits((bits >> 96) as u32)),
        IpAddr::V6(_) => format!("{}/{length}", Ipv6Addr::from_bits(bits)),
    }
}

const PORTS: [u16; 10] = [0, 22, 53, 68, 80, 443, 546, 2049, 40_000, 65_535];
const PROTOCOLS: [u8; 12] = [1, 2, 6, 6, 6, 17, 17, 47, 50, 51, 58, 112];
const TYPES: [u8; 12] = [0, 1, 2, 3, 4, 8, 11, 128, 129, 130, 135, 143];

fn one<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())]
}

fn prefixes(rng: &mut Rng) -> String {
    let one = |rng: &mut Rng| match rng.u8(..6) {
        0 => "\"@some\"".to_owned(),
        1 => "\"@p0\"".to_owned(),
        _ => format!("{:?}", prefix(rng)),
    };
    let list: Vec<_> = (0..rng.usize(1..4)).map(|_| one(rng)).collect();
    format!("[{}]", list.join(", "))
}

/// The keys of a rule but for its name and verdict.
fn matching(rng: &mut Rng, text: &mut String) {
    if rng.u8(..3) > 0 {
        let _ = writeln!(text, "sources = {}", prefixes(rng));
    }
    if rng.u8(..3) == 0 {
        let _ = writeln!(text, "destinations = {}", prefixes(rng));
    }
    let ports = |rng: &mut Rng| {
        let list: Vec<_> = (0..rng.usize(1..4))
            .map(|_| {
                let (a, b) = (one(rng, &PORTS), one(rng, &PORTS));
                if rng.bool() {
                    a.to_string()
                } else {
                    format!("\"{}-{}\"", a.min(b), a.max(b))
                }
            })
            .collect();
        list.join(", ")
    };
    let _ = match rng.u8(..8) {
        0 => Ok(()),
        1 => writeln!(text, "protocol = {}", one(rng, &PROTOCOLS)),
        2 => writeln!(
            text,
            "protocol = \"icmp\"\nicmp = [{}, {}]",
            one(rng, &TYPES),
            one(rng, &TYPES)
        ),
        3 => writeln!(text, "protocol = \"icmpv6\"\nicmp = [{}]", one(rng, &TYPES)),
        4 => writeln!(text, "protocol = [6, 17]\nports = [{}]", ports(rng)),
        5 => writeln!(
            text,
            "protocol = [{}, 50]\nfragments = \"later\"",
            one(rng, &PROTOCOLS)
        ),
        6 if rng.u8(..3) == 0 => writeln!(text, "fragments = \"later\""),
        _ => writeln!(
            text,
            "protocol = {}\nports = [{}]",
            one(rng, &[6, 17]),
            ports(rng)
        ),
    };
}

/// A policy with up to four planes and so many rules in each.
pub fn policy(rng: &mut Rng, rules: usize) -> String {
    let mut text = String::from("[sets]\n");
    for name in ["some", "others"] {
        let list: Vec<_> = (0..rng.usize(1..6))
            .map(|_| format!("{:?}", prefix(rng)))
            .collect();
        let _ = writeln!(text, "{name} = [{}]", list.join(", "));
    }
    let planes = rng.usize(1..5);
    if rng.bool() {
        let _ = writeln!(text, "[floor]\nplane = \"p0\"\nports = [22, \"443-500\"]");
        let _ = writeln!(text, "sources = [{:?}, {:?}]", prefix(rng), prefix(rng));
    }
    for plane in 0..planes {
        let _ = writeln!(
            text,
            "[[plane]]\nname = \"p{plane}\"\ninterfaces = [\"i{plane}\"]"
        );
        let list: Vec<_> = (0..rng.usize(..4))
            .map(|_| format!("{:?}", prefix(rng)))
            .collect();
        // The first is asked for by name, so it has some.
        let list = if plane == 0 {
            vec!["\"10.250.0.0/16\"".to_owned()]
        } else {
            list
        };
        let _ = writeln!(text, "prefixes = [{}]", list.join(", "));
        let _ = writeln!(text, "default = {:?}", one(rng, &["drop", "drop", "allow"]));
        let _ = writeln!(
            text,
            "mode = {:?}",
            one(rng, &["enforce", "enforce", "audit"])
        );
        if rng.u8(..4) == 0 {
            let _ = writeln!(text, "fragments = \"drop\"");
        }
        if rng.u8(..3) == 0 {
            let _ = writeln!(text, "always = [\"path-mtu\", \"dhcp\"]");
        }
        if rng.u8(..3) == 0 {
            let _ = writeln!(
                text,
                "block = {}",
                one(rng, &["[\"some\"]", "[\"others\", \"some\"]"])
            );
        }
        if rng.u8(..4) == 0 {
            let _ = writeln!(
                text,
                "[plane.wireguard]\nports = [{}]\nrate = \"10000000/s\"",
                one(rng, &PORTS[1..])
            );
        }
        for rule in 0..rng.usize(..=rules) {
            let verdict = one(rng, &["allow", "drop"]);
            let _ = writeln!(
                text,
                "[[plane.rule]]\nname = \"r{rule}\"\nverdict = {verdict:?}"
            );
            matching(rng, &mut text);
        }
    }
    for cross in 0..rng.usize(..8) {
        let (from, to) = (rng.usize(..planes), rng.usize(..planes));
        if from == to {
            continue;
        }
        let at = one(rng, &["from", "to", "both"]);
        let _ = writeln!(
            text,
            "[[cross]]\nname = \"c{cross}\"\nfrom = \"p{from}\"\nto = \"p{to}\"\nat = {at:?}"
        );
        matching(rng, &mut text);
    }
    text
}

/// Messages of WireGuard, or almost.
fn datagram(rng: &mut Rng) -> (u32, u16) {
    let word = one(rng, &[1, 2, 3, 4, 4, 0, 5, 0x101]);
    let length = one(rng, &[148, 92, 64, 32, 48, 31, 4, 1452, 149]);
    match (word, rng.bool()) {
        (1, true) => (1, 148),
        (2, true) => (2, 92),
        (3, true) => (3, 64),
        _ => (word, length),
    }
}

/// A packet that is well formed.
pub fn packet(rng: &mut Rng) -> Packet {
    let v6 = rng.bool();
    let part = one(
        rng,
        &[
            Fragment::Whole,
            Fragment::Whole,
            Fragment::Whole,
            Fragment::First,
            Fragment::Later,
        ],
    );
    let protocol = one(rng, &PROTOCOLS);
    let mut packet = Packet {
        protocol,
        source_port: one(rng, &PORTS),
        icmp: (one(rng, &TYPES), rng.u8(..6)),
        flags: one(rng, &[2, 0x10, 0x12, 4]),
        part,
        options: rng.u8(..3) * 8,
        datagram: rng.bool().then(|| datagram(rng)),
        ..Packet::tcp(address(rng, v6), address(rng, v6), one(rng, &PORTS))
    };
    if rng.bool() {
        packet.link = Link::Ethernet;
        let stacks: [&[u16]; 4] = [&[], &[], &[0x8100], &[0x88a8, 0x8100]];
        packet.tags = one(rng, &stacks).to_vec();
    }
    packet
}
