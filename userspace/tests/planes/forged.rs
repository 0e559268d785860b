//! What does not come twice: sources that are forged, each another, and packets
//! of no flow. Shortcuts for them change no verdict.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use fastrand::Rng;
use kldtrace::planes::{
    compile,
    host::Host,
    install::write,
    policy::{Narrow, Policy, Prefix, Rule, Service},
};
use kldtrace_abi::plane::{
    Facts, Flow, FlowKey, Link, Reason,
    flow::{keep, stamp_of},
    parse,
};

use super::{
    agree::read,
    kernel::{load, root},
    large,
    packet::Packet,
    random,
};

/// An address by its first 32 bits.
fn address(v6: bool, bits: u32) -> IpAddr {
    if v6 {
        Ipv6Addr::from_bits(u128::from(bits) << 96).into()
    } else {
        Ipv4Addr::from_bits(bits).into()
    }
}

/// A policy with prefixes of all lengths around those that blocks have, near
/// each other: a list, sources of rules, and the plane's own, which may be the
/// world.
fn policy(rng: &mut Rng) -> Policy {
    let mut policy = large::policy(0, 0);
    let mut prefixes = |most: usize| {
        let prefix = |rng: &mut Rng| {
            let bits = rng.u32(..8) << 29 | rng.u32(..4) << 18 | rng.u32(..8) << 9;
            Prefix::new(address(rng.bool(), bits), rng.u8(4..36))
        };
        let many = rng.usize(..most);
        (0..many).map(|_| prefix(rng)).collect::<Vec<_>>()
    };
    policy.sets[0].prefixes = prefixes(20);
    policy.planes[0].prefixes = prefixes(4);
    policy.planes[0].rules = (0..4)
        .map(|number| Rule {
            name: format!("r{number}"),
            pass: number != 2,
            sources: Some(prefixes(8)),
            service: Service {
                protocols: vec![6, 17],
                narrow: Narrow::Ports(vec![(22, 23 + number)]),
            },
            ..Rule::default()
        })
        .collect();
    if rng.bool() {
        let world = [false, true].map(|v6| Prefix::new(address(v6, 0), 0));
        policy.planes[0].prefixes.extend(world);
    }
    policy
}

/// A SYN or a datagram from one of the addresses at which something may begin
/// or end, or from anywhere.
fn forged(rng: &mut Rng, policy: &Policy, ends: &[Prefix]) -> Packet {
    let listed = &policy.sets[0].prefixes;
    let prefix = match (rng.u8(..3), listed.is_empty(), ends.is_empty()) {
        (0, false, _) => Some(listed[rng.usize(..listed.len())]),
        (1, _, false) => Some(ends[rng.usize(..ends.len())]),
        _ => None,
    };
    let source = match prefix {
        None => address(rng.bool(), rng.u32(..)),
        Some(prefix) => {
            let bits = [
                prefix.bits,
                prefix.last(),
                prefix.bits.wrapping_sub(1 << 96),
                prefix.last().wrapping_add(1 << 96),
            ][rng.usize(..4)];
            address(prefix.v6, (bits >> 96) as u32)
        }
    };
    let node = if source.is_ipv4() {
        IpAddr::from([10, 0, 0, 1])
    } else {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])
    };
    Packet {
        link: Link::Ethernet,
        protocol: if rng.bool() { 6 } else { 17 },
        ..Packet::tcp(source, node, rng.u16(22..28))
    }
}

fn sources(policy: &Policy) -> Vec<Prefix> {
    let rules = policy.planes[0].rules.iter();
    let asked = rules.filter_map(|rule| rule.sources.as_ref()).flatten();
    asked.chain(&policy.planes[0].prefixes).copied().collect()
}

fn facts(packet: &Packet) -> Facts {
    parse(&packet.bytes()[..], packet.link)
}

/// What is kept of one usual source is said to all of them, and to no other.
#[test]
fn sources_that_share_what_was_decided_have_one_verdict() {
    let mut rng = Rng::with_seed(12);
    let mut host = Host::new(Vec::new());
    let mut reasons = HashSet::new();
    for generation in 1..300 {
        let policy = policy(&mut rng);
        let ends = sources(&policy);
        host.cells = compile::image(&policy, generation).unwrap().cells;
        for _ in 0..300 {
            let packet = forged(&mut rng, &policy, &ends);
            let facts = facts(&packet);
            let found = host.judge(1, &facts);
            let kept = std::mem::take(&mut host.memos);
            let expected = host.judge(1, &facts);
            host.memos = kept;
            assert_eq!(found, expected, "{packet:?} {policy:?}");
            reasons.insert(expected.reason);
        }
    }
    for reason in [Reason::Default, Reason::Rule, Reason::Blocked] {
        assert!(reasons.contains(&reason), "{reasons:?}");
    }
}

/// The same in the kernel, whose maps have no more than one value at hand, with
/// a policy that takes several.
#[test]
fn forged_sources_get_the_same_verdict_in_the_kernel_and_here() {
    if !root() {
        return;
    }
    let mut rng = Rng::with_seed(13);
    let mut loaded = load(1, Link::Ethernet);
    for (generation, policy) in [large::policy(1_000, 50_000), policy(&mut rng)]
        .into_iter()
        .enumerate()
    {
        let generation = u32::try_from(generation).unwrap() + 1;
        let compiled = compile::image(&policy, generation).unwrap();
        let image = write(&compiled.cells).unwrap();
        loaded.programs.swap(&image).unwrap();
        let ends = sources(&policy);
        let mut host = Host::new(compiled.cells);
        for _ in 0..5_000 {
            let packet = forged(&mut rng, &policy, &ends);
            host.memos.clear();
            let expected = host.judge(1, &facts(&packet));
            assert_eq!(loaded.judge(&packet.bytes()), expected, "{packet:?}");
        }
    }
}

/// A flood from anywhere leaves hardly an entry: so it is fast, and what was
/// kept of others stays.
#[test]
fn forged_sources_are_kept_together() {
    for world in ["", "prefixes = [\"0.0.0.0/0\"]\n"] {
        let text = format!(
            "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n{world}\
             [[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nprotocol = \"tcp\"\nports = [22]\n\
             sources = [\"10.0.0.0/24\", \"192.0.2.1\"]\n"
        );
        let mut host = Host::new(compile::image(&read(&text), 1).unwrap().cells);
        let mut rng = Rng::with_seed(14);
        for _ in 0..10_000 {
            let source = address(false, 0x2000_0000 | rng.u32(..) >> 2);
            let packet = Packet::tcp(source, address(false, 0x0a00_0001), 22);
            assert_eq!(host.judge(1, &facts(&packet)).reason, Reason::Default);
        }
        let kept = host.memos.values().filter(|memo| **memo != <_>::default());
        assert!(kept.count() < 20);
    }
}

const SECOND: u64 = 1_000_000_000;

/// Every flow that the table would let in is found, however long ago it was
/// seen and whatever shares its stamp: as if the table were always asked.
#[test]
fn stamps_change_no_verdict() {
    let mut rng = Rng::with_seed(15);
    let mut host = Host::new(Vec::new());
    // Units of stamps begin anew on the way.
    host.now = (1 << 49) - 3_000 * SECOND;
    let (mut established, mut spared) = (0, 0);
    let mut seen: Vec<Packet> = Vec::new();
    for generation in 1..100 {
        let text = random::policy(&mut rng, 12);
        host.cells = compile::image(&read(&text), generation).unwrap().cells;
        for _ in 0..200 {
            host.now += match rng.u8(..20) {
                0 => rng.u64(..7 * 24 * 3600) * SECOND,
                1..4 => rng.u64(..700) * SECOND,
                4..8 => rng.u64(..130) * SECOND,
                _ => rng.u64(..SECOND),
            };
            let packet = random::packet(&mut rng);
            host.leaves(1, &facts(&packet).turned());
            seen.push(packet);
            let packet = &seen[seen.len() - 1 - rng.usize(..seen.len().min(30))];
            let facts = facts(packet);
            host.memos.clear();
            // Each place has a flow that was seen now.
            let mut asked = host.clone();
            let key = FlowKey::arriving(&facts, 1);
            if let Some(key) = &key {
                asked.stamps.insert(key.place(), stamp_of(host.now));
            }
            let expected = asked.judge(1, &facts);
            assert_eq!(host.judge(1, &facts), expected, "{packet:?}");
            established += usize::from(expected.reason == Reason::Established);
            let stamp = key.map(|key| host.stamps.get(&key.place()).copied());
            spared += usize::from(stamp.is_some_and(|stamp| stamp != Some(stamp_of(host.now))));
        }
        host.flows
            .retain(|_, flow| host.now - flow.seen < 6 * 24 * 3600 * SECOND);
    }
    assert!(
        established > 1_000 && spared > 1_000,
        "{established} {spared}"
    );
}

/// To the nanosecond, at each place of the wheel that stamps are.
#[test]
fn a_flow_is_found_until_its_time_is_over() {
    let text = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n";
    let mut host = Host::new(compile::image(&read(text), 1).unwrap().cells);
    let [peer, node] = [[10, 0, 0, 9], [10, 0, 0, 1]].map(IpAddr::from);
    for (protocol, idle) in [(6, 5 * 24 * 3600), (17, 120), (1, 30), (50, 600)] {
        let packet = Packet {
            protocol,
            flags: 0x10,
            ..Packet::tcp(peer, node, 4000)
        };
        let facts = facts(&packet);
        let key = FlowKey::arriving(&facts, 1).unwrap();
        for began in [
            SECOND,
            (1 << 33) - 1,
            1 << 33,
            (1 << 49) - 1,
            1 << 49,
            3 << 49,
        ] {
            keep(&mut host, &key, Flow::of(0, 0, began));
            for after in [
                0,
                SECOND,
                idle * SECOND / 2,
                idle * SECOND - 1,
                idle * SECOND,
            ] {
                host.now = began + after;
                host.memos.clear();
                // As it was when it was kept: what finds it notes that.
                host.flows.insert(key, Flow::of(0, 0, began));
                host.stamps.insert(key.place(), stamp_of(began));
                let found = host.judge(1, &facts).reason == Reason::Established;
                assert_eq!(found, after < idle * SECOND, "{protocol} {began} {after}");
            }
            // Another CPU has put a stamp of a moment that is not here yet.
            host.now = began;
            host.memos.clear();
            let soon = stamp_of(began + (1 << 33));
            host.stamps.insert(key.place(), soon);
            host.flows.insert(key, Flow::of(0, 0, began));
            assert_eq!(host.judge(1, &facts).reason, Reason::Established);
        }
    }
}

/// Whatever has not been stamped is not looked for: so all that lets in must be.
#[test]
fn a_flow_without_a_stamp_is_none() {
    let text = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n";
    let mut host = Host::new(compile::image(&read(text), 1).unwrap().cells);
    let [peer, node] = [[10, 0, 0, 9], [10, 0, 0, 1]].map(IpAddr::from);
    let packet = Packet {
        protocol: 17,
        ..Packet::tcp(peer, node, 4000)
    };
    let facts = facts(&packet);
    let key = FlowKey::arriving(&facts, 1).unwrap();
    let flow = Flow::of(0, 0, host.now);
    host.flows.insert(key, flow);
    assert_eq!(host.judge(1, &facts).reason, Reason::Default);
    host.memos.clear();
    keep(&mut host, &key, flow);
    assert_eq!(host.judge(1, &facts).reason, Reason::Established);
}

/// Places of stamps are all used: else the table is asked more than need be.
#[test]
fn stamps_spread_over_all_places() {
    let mut rng = Rng::with_seed(16);
    let mut seen = HashSet::new();
    let many = 100_000;
    for _ in 0..many {
        let mut packet = Packet::tcp(
            address(false, 0x0a00_0000 | rng.u32(..256)),
            address(false, 0x0a01_0000 | rng.u32(..4)),
            32_768 + rng.u16(..28_000),
        );
        packet.source_port = [53, 443, 8080][rng.usize(..3)];
        packet.protocol = 17;
        seen.insert(FlowKey::arriving(&facts(&packet), 1).unwrap().place());
    }
    // By chance 1 - e^(-100,000 / 65,536) of all are taken.
    let part = seen.len() as f64 / 65_536.0;
    assert!((0.77..0.80).contains(&part), "{part}");
}
