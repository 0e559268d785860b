//! What is learned lets pass what was seen.

use std::io;

use kldtrace_abi::plane::{Action, Facts, Family, Fragment, Outcome};
use proptest::prelude::*;

use super::{Learner, Left, insert, remarks};
use crate::planes::{
    compile,
    host::Host,
    policy::{self, Policy},
    read,
};

const POLICY: &str = r#"# The planes of a test.
[sets]
bad = ["192.0.2.0/24"]

[[plane]]
name = "storage"
interfaces = ["wg-storage"]
prefixes = ["10.251.0.0/24", "fd00:251::/64"]
always = []

[[plane.rule]]
name = "no-telnet"
verdict = "drop"
protocol = "tcp"
ports = [23]

# What follows belongs to the other.
[[plane]]
name = "external"
interfaces = ["eth0"]
prefixes = ["0.0.0.0/0", "::/0"]
block = ["bad"]
fragments = "drop"

[[plane]]
name = "quoted \" name"
interfaces = ["wg2"]
prefixes = ["10.252.0.0/24"]

[[cross]]
name = "learned-tcp-80"
from = "storage"
to = "external"
protocol = "tcp"
ports = [81]
"#;

fn parse(text: &str) -> Policy {
    read::parse(text, "test", &|_| Err(io::ErrorKind::NotFound.into())).unwrap()
}

fn host(policy: &Policy) -> Host {
    Host::new(compile::image(policy, 1).unwrap().cells)
}

fn judge(host: &mut Host, plane: usize, facts: &Facts) -> Outcome {
    // Each is a first packet: no flow is known.
    host.flows.clear();
    host.judge(plane as u8 + 1, facts)
}

fn facts(source: &str, destination: &str, protocol: u8, port: u16) -> Facts {
    let source: std::net::IpAddr = source.parse().unwrap();
    Facts {
        source: policy::address(source),
        destination: policy::address(destination.parse().unwrap()),
        length: 60,
        source_port: if matches!(protocol, 6 | 17) {
            40_000
        } else {
            0
        },
        destination_port: port,
        family: if source.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        },
        protocol,
        tcp_flags: if protocol == 6 { 2 } else { 0 },
        ..Facts::default()
    }
}

#[test]
fn what_is_proposed_reads_as_people_would_write_it() {
    let policy = parse(POLICY);
    let mut host = host(&policy);
    let mut learner = Learner::new(&policy);
    let mut see = |plane, facts: Facts| {
        let outcome = judge(&mut host, plane, &facts);
        learner.see(plane, &facts, &outcome)
    };
    for last in 2..4 {
        let from = format!("10.251.0.{last}");
        see(0, facts(&from, "10.251.0.1", 6, 2049)).unwrap();
        see(0, facts(&from, "10.251.0.1", 6, 111)).unwrap();
    }
    see(0, facts("10.251.0.9", "224.0.0.18", 112, 0)).unwrap();
    see(0, facts("10.251.0.9", "8.8.8.8", 6, 80)).unwrap();
    see(1, facts("8.8.8.8", "9.9.9.9", 17, 443)).unwrap();
    assert_eq!(
        see(0, facts("10.251.0.9", "10.251.0.1", 6, 23)),
        Err(Left::Rule)
    );
    assert_eq!(
        see(1, facts("192.0.2.1", "9.9.9.9", 6, 25)),
        Err(Left::Blocked)
    );
    assert_eq!(
        see(1, facts("10.251.0.9", "10.252.0.1", 6, 25)),
        Err(Left::Elsewhere)
    );
    let proposal = learner.propose();
    let text = insert(
        POLICY,
        &policy,
        &|_| Err(io::ErrorKind::NotFound.into()),
        &proposal,
    );
    let text = text.unwrap();
    let expected = r#"ports = [23]

# port 111: 2 packets, such as tcp 10.251.0.2:40000 > 10.251.0.1:111, tcp 10.251.0.3:40000 > 10.251.0.1:111
# port 2049: 2 packets, such as tcp 10.251.0.2:40000 > 10.251.0.1:2049, tcp 10.251.0.3:40000 > 10.251.0.1:2049
[[plane.rule]]
name = "learned-tcp"
verdict = "allow"
protocol = "tcp"
ports = [111, 2049]
sources = ["@storage"]

# 1 packets, such as vrrp 10.251.0.9 > 224.0.0.18
[[plane.rule]]
name = "learned-vrrp"
verdict = "allow"
protocol = "vrrp"
sources = ["@storage"]
destinations = ["224.0.0.18/32"]

# What follows belongs to the other.
[[plane]]
name = "external"
interfaces = ["eth0"]
prefixes = ["0.0.0.0/0", "::/0"]
block = ["bad"]
fragments = "drop"

# port 443: 1 packets, such as udp 8.8.8.8:40000 > 9.9.9.9:443
[[plane.rule]]
name = "learned-udp-443"
verdict = "allow"
protocol = "udp"
ports = [443]
sources = ["8.8.8.8/32"]

[[plane]]
"#;
    assert!(text.contains(expected), "{text}");
    let cross = r#"
# port 80: 1 packets, such as tcp 10.251.0.9:40000 > 8.8.8.8:80
[[cross]]
name = "learned-tcp-80-2"
from = "storage"
to = "external"
at = "from"
protocol = "tcp"
ports = [80]
sources = ["@storage"]
"#;
    assert!(text.ends_with(cross), "{text}");
    let said = remarks(&proposal, 7);
    assert_eq!(
        said,
        "# Learned from 10 packets that would have been dropped.\n\
         # 7 more would have been, and were not looked at: at most 50 in a second on each CPU are.\n\
         # No rule is proposed for 1 packets: from sources on a block list.\n\
         # No rule is proposed for 1 packets: dropped by a rule of the policy.\n\
         # No rule is proposed for 1 packets: between two planes that are both elsewhere.\n"
    );
}

#[test]
fn memory_is_bounded_and_what_has_no_room_is_counted() {
    let policy = parse(POLICY);
    let mut host = host(&policy);
    let mut learner = Learner::new(&policy);
    let mut kept = 0;
    for number in 0..100_000_u32 {
        let [_, a, b, c] = number.to_be_bytes();
        let facts = facts(&format!("11.{a}.{b}.{c}"), "9.9.9.9", 6, 25);
        let outcome = judge(&mut host, 1, &facts);
        kept += u64::from(learner.see(1, &facts, &outcome).is_ok());
    }
    assert!(learner.groups.len() <= 256, "{}", learner.groups.len());
    let proposal = learner.propose();
    assert_eq!(proposal.seen, 100_000);
    assert_eq!(proposal.left[&Left::NoRoom] + kept, 100_000);
    // The first network, as a whole.
    assert!(
        proposal.rules[0].toml.contains("11.0.0.0/24"),
        "{}",
        proposal.rules[0].toml
    );
}

fn address(v6: bool) -> impl Strategy<Value = std::net::IpAddr> {
    let v4 = prop_oneof![
        (0_u8..20).prop_map(|last| [10, 251, 0, last]),
        (0_u8..20).prop_map(|last| [10, 252, 0, last]),
        (0_u8..40, any::<u8>()).prop_map(|(net, last)| [8, 8, net, last]),
        (1_u8..20).prop_map(|last| [192, 0, 2, last]),
        Just([224, 0, 0, 18]),
        Just([255, 255, 255, 255]),
        Just([0, 0, 0, 0]),
        (1_u8..9).prop_map(|last| [169, 254, 0, last]),
    ];
    let v4 = v4.prop_map(std::net::IpAddr::from);
    let six = prop_oneof![
        Just("fd00:251::"),
        Just("2001:db8::"),
        Just("fe80::"),
        Just("ff02::")
    ];
    let six = (six, 1_u16..20).prop_map(|(net, last)| format!("{net}{last:x}").parse().unwrap());
    if v6 { six.boxed() } else { v4.boxed() }
}

prop_compose! {
    fn packet()(v6 in any::<bool>())(
        source in address(v6),
        destination in address(v6),
        protocol in prop_oneof![Just(6_u8), Just(17), Just(1), Just(58), Just(50), Just(112), any::<u8>()],
        port in prop_oneof![0_u16..40, any::<u16>()],
        kind in any::<u8>(),
        flags in prop_oneof![Just(2_u8), Just(16), any::<u8>()],
        fragment in prop_oneof![
            4 => Just(Fragment::Whole), 1 => Just(Fragment::First), 1 => Just(Fragment::Later)
        ],
        plane in 0_usize..3,
    ) -> (usize, Facts) {
        let mut facts = facts(&source.to_string(), &destination.to_string(), protocol, 0);
        let later = fragment == Fragment::Later;
        facts.fragment = fragment;
        if matches!(protocol, 6 | 17) && !later {
            facts.destination_port = port;
        } else {
            facts.source_port = 0;
        }
        facts.tcp_flags = if protocol == 6 && !later { flags } else { 0 };
        let own = if source.is_ipv4() { 1 } else { 58 };
        if protocol == own && !later {
            facts.icmp_type = kind;
        }
        (plane, facts)
    }
}

proptest! {
    #[test]
    fn everything_that_was_kept_passes_by_what_is_proposed(
        packets in prop::collection::vec(packet(), 1..200),
    ) {
        let policy = parse(POLICY);
        let mut before = host(&policy);
        let mut learner = Learner::new(&policy);
        let mut kept = Vec::new();
        let mut left = 0_u64;
        for (plane, facts) in packets {
            let outcome = judge(&mut before, plane, &facts);
            match learner.see(plane, &facts, &outcome) {
                Ok(()) => kept.push((plane, facts)),
                Err(_) => left += 1,
            }
        }
        let proposal = learner.propose();
        prop_assert_eq!(proposal.left.values().sum::<u64>(), left);
        let files = |_: &std::path::Path| Err(io::ErrorKind::NotFound.into());
        let text = insert(POLICY, &policy, &files, &proposal).unwrap();
        let proposed = parse(&text);
        let mut after = host(&proposed);
        for (plane, facts) in kept {
            let outcome = judge(&mut after, plane, &facts);
            prop_assert_eq!(outcome.action, Action::Pass, "{:?}\n{}", facts, text);
        }
    }
}
