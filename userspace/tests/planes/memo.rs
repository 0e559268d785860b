//! What was decided a moment ago: a packet gets the verdict that it would get
//! without, whether there is an entry for it or not.

use std::net::{IpAddr, Ipv4Addr};

use fastrand::Rng;
use kldtrace::planes::{compile, host::Host};
use kldtrace_abi::plane::{
    Action, Facts, Flow, FlowKey, Link, Reason,
    flow::keep,
    memo::{Key, LEASE, MEMOS},
    parse,
};

use super::{agree::read, packet::Packet, random};

const HEAD: &str = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nprefixes = [\"10.0.0.0/24\"]\nmode = \"enforce\"\n";
const SSH: &str =
    "[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nprotocol = \"tcp\"\nports = [22]\n";

fn cells(rules: &str, generation: u32) -> Vec<kldtrace_abi::plane::Cell> {
    let text = format!("{HEAD}{rules}");
    compile::image(&read(&text), generation).unwrap().cells
}

fn tcp(source: [u8; 4], source_port: u16, port: u16, flags: u8) -> Facts {
    let v4 = |octets| IpAddr::from(Ipv4Addr::from(octets));
    let packet = Packet {
        source_port,
        flags,
        ..Packet::tcp(v4(source), v4([10, 0, 0, 1]), port)
    };
    parse(&packet.bytes()[..], Link::Bare)
}

const SYN: u8 = 2;
const ACK: u8 = 0x10;
const PEER: [u8; 4] = [10, 0, 0, 9];

/// Each packet of random policies comes twice, and once more without what was
/// kept; now and then the policy is another, or time has passed.
#[test]
fn what_is_kept_changes_no_verdict() {
    let mut rng = Rng::with_seed(9);
    let mut host = Host::new(Vec::new());
    for generation in 1..200 {
        let policy = read(&random::policy(&mut rng, 12));
        host.cells = compile::image(&policy, generation).unwrap().cells;
        for _ in 0..200 {
            let packet = random::packet(&mut rng);
            let facts = parse(&packet.bytes()[..], packet.link);
            if rng.u8(..4) == 0 {
                host.leaves(1, &facts.turned());
            }
            if rng.u8(..20) == 0 {
                host.now += rng.u64(..2_000_000_000);
            }
            let found = [0; 2].map(|_| host.judge(1, &facts));
            let kept = std::mem::take(&mut host.memos);
            let expected = host.judge(1, &facts);
            host.memos = kept;
            assert_eq!(found, [expected; 2], "{packet:?}");
        }
    }
    assert!(host.memos.len() > 1000, "{}", host.memos.len());
}

#[test]
fn an_entry_ends_with_its_policy() {
    let mut host = Host::new(cells(SSH, 1));
    let (first, other) = (tcp(PEER, 5, 22, SYN), tcp(PEER, 5, 80, SYN));
    for _ in 0..2 {
        assert_eq!(host.judge(1, &first).reason, Reason::Rule);
        assert_eq!(host.judge(1, &other).action, Action::Drop);
    }
    // It is by what rules look at, whatever port it comes from.
    assert_eq!(host.judge(1, &tcp(PEER, 6, 22, SYN)).reason, Reason::Rule);
    host.cells = cells("", 2);
    assert_eq!(host.judge(1, &first).reason, Reason::Default);
    // Back to the first policy, with a generation of its own or its old one.
    for generation in [3, 1] {
        host.cells = cells(SSH, generation);
        assert_eq!(host.judge(1, &first).reason, Reason::Rule);
        assert_eq!(host.judge(1, &other).action, Action::Drop);
    }
}

#[test]
fn a_flow_is_asked_about_again_when_its_lease_is_over() {
    let mut host = Host::new(cells("", 1));
    let facts = tcp(PEER, 443, 5000, ACK);
    let key = FlowKey::arriving(&facts, 1).unwrap();
    let now = host.now;
    keep(&mut host, &key, Flow::of(0, 0, now));
    assert_eq!(host.judge(1, &facts).reason, Reason::Established);
    // The table has forgotten it: for so long nobody asks.
    let flow = host.flows.remove(&key).unwrap();
    assert_eq!(host.judge(1, &facts).reason, Reason::Established);
    // A tick here is 10 ms.
    host.now += (LEASE - 1) * 10_000_000;
    assert_eq!(host.judge(1, &facts).reason, Reason::Established);
    host.now += 10_000_000;
    assert_eq!(host.judge(1, &facts).action, Action::Drop);
    // While it is used, the table knows when it was: to 2 s.
    keep(&mut host, &key, flow);
    for _ in 0..100 {
        host.now += 100_000_000;
        assert_eq!(host.judge(1, &facts).reason, Reason::Established);
    }
    assert!(host.now - host.flows[&key].seen < 2_000_000_000);
}

#[test]
fn flows_and_first_packets_that_share_a_place_keep_their_verdicts() {
    let mut host = Host::new(cells(SSH, 1));
    let mut rng = Rng::with_seed(10);
    let mut random = |flags| {
        let [_, b, c, d] = rng.u32(..).to_be_bytes();
        let port = if rng.bool() { 22 } else { 80 };
        tcp([10, b, c, d], rng.u16(1..), port, flags)
    };
    for flags in [SYN, ACK] {
        // More than there are places, so that each has had several.
        let packets: Vec<_> = (0..MEMOS * 4).map(|_| random(flags)).collect();
        for facts in packets.iter().filter(|facts| facts.source_port % 2 == 0) {
            let key = FlowKey::arriving(facts, 1).unwrap();
            let now = host.now;
            keep(&mut host, &key, Flow::of(0, 0, now));
        }
        let expected = packets.iter().map(|facts| {
            host.memos.clear();
            host.judge(1, facts)
        });
        let expected: Vec<_> = expected.collect();
        host.memos.clear();
        for _ in 0..2 {
            for (facts, expected) in packets.iter().zip(&expected) {
                assert_eq!(host.judge(1, facts), *expected, "{facts:?}");
            }
        }
    }
}

/// What is remembered is the rules' answer: what is left of a source's share is
/// asked each time.
#[test]
fn what_counts_against_a_rate_is_counted_each_time() {
    let plane = "rate = \"1/m\"\nburst = 2\n";
    let rule = "rate = \"1/m\"\nburst = 2\n";
    for (head, tail) in [(plane, ""), ("", rule)] {
        let mut host = Host::new(cells(&format!("{head}{SSH}{tail}"), 1));
        let reasons = [0; 3].map(|_| host.judge(1, &tcp(PEER, 5, 22, SYN)).reason);
        assert_eq!(reasons, [Reason::Rule, Reason::Rule, Reason::Rate]);
    }
}

/// In audit mode a SYN that nothing lets in ends the flow that was there.
#[test]
fn what_is_refused_is_not_remembered() {
    let text = HEAD.replace("enforce", "audit");
    let mut host = Host::new(compile::image(&read(&text), 1).unwrap().cells);
    let facts = tcp(PEER, 443, 5000, ACK);
    let key = FlowKey::arriving(&facts, 1).unwrap();
    let now = host.now;
    keep(&mut host, &key, Flow::of(0, 0, now));
    for _ in 0..2 {
        assert_eq!(host.judge(1, &facts).reason, Reason::Established);
    }
    let syn = tcp(PEER, 443, 5000, SYN);
    assert_eq!(host.judge(1, &syn).action, Action::WouldDrop);
    assert_eq!(host.judge(1, &facts).action, Action::WouldDrop);
}

/// The places are all used: else the memo is smaller than it looks.
#[test]
fn flows_spread_over_all_places() {
    let mut rng = Rng::with_seed(11);
    let mut seen = std::collections::HashMap::new();
    for _ in 0..MEMOS * 8 {
        let facts = tcp([10, 0, 0, rng.u8(..)], rng.u16(..), 22, ACK);
        *seen.entry(Key::flow(&facts, 1).place()).or_insert(0) += 1;
    }
    assert!(seen.len() as u32 > MEMOS / 2 * 99 / 100, "{}", seen.len());
    assert!(*seen.values().max().unwrap() < 50);
}
