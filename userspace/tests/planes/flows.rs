//! Flows: who began, and what becomes of it when the policy changes.

use kldtrace::planes::{
    compile::{self, Compiled},
    explain::packet,
    host::Host,
};
use kldtrace_abi::plane::{Action, Facts, Reason};

use super::agree::read;

const HEAD: &str = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nprefixes = [\"10.0.0.0/24\"]\n";
const SSH: &str = "[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nprotocol = [\"tcp\", \"udp\"]\nports = [22]\n";

fn policy(mode: &str, rules: &str, generation: u32) -> Compiled {
    let text = format!("{HEAD}mode = {mode:?}\n{rules}");
    compile::image(&read(&text), generation).unwrap()
}

fn facts(text: &str, flags: u8) -> Facts {
    let mut facts = packet(text).unwrap();
    if facts.protocol == 6 {
        facts.tcp_flags = flags;
    }
    facts
}

const SYN: u8 = 2;
const ACK: u8 = 0x10;
const SYN_ACK: u8 = 0x12;
const RST: u8 = 4;

#[test]
fn what_the_node_began_passes_whatever_the_policy_becomes() {
    let mut host = Host::new(policy("enforce", SSH, 1).cells);
    for (out, back) in [
        (
            "tcp 10.0.0.2:50000 > 10.0.0.9:443",
            "tcp 10.0.0.9:443 > 10.0.0.2:50000",
        ),
        (
            "udp 10.0.0.2:50000 > 10.0.0.9:53",
            "udp 10.0.0.9:53 > 10.0.0.2:50000",
        ),
        (
            "icmp 10.0.0.2 > 10.0.0.9 echo-request",
            "icmp 10.0.0.9 > 10.0.0.2 echo-reply",
        ),
        ("esp 10.0.0.2 > 10.0.0.9", "esp 10.0.0.9 > 10.0.0.2"),
    ] {
        let answer = facts(back, SYN_ACK);
        assert_eq!(host.judge(1, &answer).action, Action::Drop, "{back}");
        host.leaves(1, &facts(out, SYN));
        assert_eq!(host.judge(1, &answer).reason, Reason::Established, "{back}");
        // A SYN of the other side is no answer.
        let syn = facts(back, SYN);
        assert_eq!(
            host.judge(1, &syn).action == Action::Drop,
            syn.protocol == 6
        );
        host.cells = policy("enforce", "", 2).cells;
        assert_eq!(host.judge(1, &answer).reason, Reason::Established, "{back}");
        host.now += 6 * 24 * 3600 * 1_000_000_000;
        assert_eq!(host.judge(1, &answer).action, Action::Drop, "{back}");
    }
}

#[test]
fn what_a_rule_let_in_ends_with_the_rule() {
    for (peer, answer) in [
        (
            "tcp 10.0.0.9:50000 > 10.0.0.2:22",
            "tcp 10.0.0.2:22 > 10.0.0.9:50000",
        ),
        (
            "udp 10.0.0.9:50000 > 10.0.0.2:22",
            "udp 10.0.0.2:22 > 10.0.0.9:50000",
        ),
    ] {
        let mut host = Host::new(policy("enforce", SSH, 1).cells);
        assert_eq!(host.judge(1, &facts(peer, SYN)).reason, Reason::Rule);
        host.leaves(1, &facts(answer, SYN_ACK));
        let next = facts(peer, ACK);
        let outcome = host.judge(1, &next);
        assert_eq!((outcome.reason, outcome.rule), (Reason::Established, 1));
        // The same rules once more: the flow is judged anew, and passes.
        host.cells = policy("enforce", SSH, 2).cells;
        assert_eq!(host.judge(1, &next).reason, Reason::Rule);
        host.leaves(1, &facts(answer, ACK));
        assert_eq!(host.judge(1, &next).reason, Reason::Established);
        // Without the rule it ends, also when the node goes on sending.
        host.cells = policy("enforce", "", 3).cells;
        assert_eq!(host.judge(1, &next).action, Action::Drop);
        host.leaves(1, &facts(answer, ACK));
        assert_eq!(host.judge(1, &next).action, Action::Drop);
    }
}

#[test]
fn audit_admits_nothing_for_later() {
    for (peer, answer) in [
        (
            "tcp 10.0.0.9:50000 > 10.0.0.2:80",
            "tcp 10.0.0.2:80 > 10.0.0.9:50000",
        ),
        (
            "udp 10.0.0.9:50000 > 10.0.0.2:80",
            "udp 10.0.0.2:80 > 10.0.0.9:50000",
        ),
    ] {
        let mut host = Host::new(policy("audit", "", 1).cells);
        assert_eq!(host.judge(1, &facts(peer, SYN)).action, Action::WouldDrop);
        for flags in [SYN_ACK, ACK] {
            host.leaves(1, &facts(answer, flags));
            let next = host.judge(1, &facts(peer, ACK));
            assert_eq!(
                (next.action, next.reason),
                (Action::WouldDrop, Reason::Default)
            );
        }
        host.cells = policy("enforce", "", 2).cells;
        host.leaves(1, &facts(answer, ACK));
        assert_eq!(host.judge(1, &facts(peer, ACK)).action, Action::Drop);
    }
}

/// Nor does a part of a datagram that the plane would not take.
#[test]
fn audit_admits_no_flow_by_its_parts() {
    let mut host = Host::new(policy("audit", "fragments = \"drop\"\n", 1).cells);
    let peer = "udp 10.0.0.9:50000 > 10.0.0.2:80";
    let part = host.judge(1, &facts(&format!("{peer} first"), 0));
    assert_eq!(
        (part.action, part.reason),
        (Action::WouldDrop, Reason::Fragment)
    );
    host.leaves(1, &facts("udp 10.0.0.2:80 > 10.0.0.9:50000", 0));
    host.cells = policy("enforce", "fragments = \"drop\"\n", 2).cells;
    assert_eq!(host.judge(1, &facts(peer, 0)).action, Action::Drop);
}

#[test]
fn connections_that_were_there_before_go_on_and_refusals_make_none() {
    let mut host = Host::new(policy("enforce", "", 1).cells);
    let (peer, answer) = (
        "tcp 10.0.0.9:50000 > 10.0.0.2:80",
        "tcp 10.0.0.2:80 > 10.0.0.9:50000",
    );
    for flags in [RST, RST | ACK, SYN_ACK] {
        host.leaves(1, &facts(answer, flags));
        assert_eq!(
            host.judge(1, &facts(peer, ACK)).action,
            Action::Drop,
            "{flags:#x}"
        );
    }
    host.leaves(1, &facts(answer, ACK));
    assert_eq!(host.judge(1, &facts(peer, ACK)).reason, Reason::Established);
}

/// A rule for questions, with a rate or without, is none for the answers to
/// the node's own.
#[test]
fn answers_to_the_nodes_echoes_pass_whatever_rules_say_of_questions() {
    for rate in ["", "rate = \"1/m\"\n"] {
        for (protocol, node, peer) in [
            ("icmp", "10.0.0.2", "10.0.0.9"),
            ("icmpv6", "fd00::2", "fd00::9"),
        ] {
            let rule = format!(
                "[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nprotocol = \"{protocol}\"\n\
                 icmp = [\"echo-request\"]\n{rate}"
            );
            let mut host = Host::new(policy("enforce", &rule, 1).cells);
            let answer = facts(&format!("{protocol} {peer} > {node} echo-reply"), 0);
            assert_eq!(host.judge(1, &answer).action, Action::Drop);
            host.leaves(
                1,
                &facts(&format!("{protocol} {node} > {peer} echo-request"), 0),
            );
            for generation in 2..5 {
                let outcome = host.judge(1, &answer);
                assert_eq!(outcome.reason, Reason::Established, "{rate}{protocol}");
                host.cells = policy("enforce", &rule, generation).cells;
            }
            // What the node answers makes no flow of questions.
            let question = facts(&format!("{protocol} {peer} > {node} echo-request"), 0);
            host.leaves(1, &question.turned());
            assert_eq!(host.judge(1, &question).reason, Reason::Rule);
        }
    }
}

/// Each packet of a rule with a rate counts, but of TCP only the first.
#[test]
fn rates_count_packets_and_connections() {
    let limited = format!("{SSH}rate = \"1/m\"\nburst = 2\n");
    let mut host = Host::new(policy("enforce", &limited, 1).cells);
    let (peer, answer) = (
        "udp 10.0.0.9:50000 > 10.0.0.2:22",
        "udp 10.0.0.2:22 > 10.0.0.9:50000",
    );
    let mut verdicts = Vec::new();
    for _ in 0..3 {
        verdicts.push(host.judge(1, &facts(peer, 0)).reason);
        host.leaves(1, &facts(answer, 0));
    }
    assert_eq!(verdicts, [Reason::Rule, Reason::Rule, Reason::Rate]);
    // Another source has a bucket of its own.
    let other = facts("tcp 10.0.0.8:50000 > 10.0.0.2:22", SYN);
    assert_eq!(host.judge(1, &other).reason, Reason::Rule);
    host.leaves(1, &facts("tcp 10.0.0.2:22 > 10.0.0.8:50000", SYN_ACK));
    let next = facts("tcp 10.0.0.8:50000 > 10.0.0.2:22", ACK);
    for _ in 0..9 {
        assert_eq!(host.judge(1, &next).reason, Reason::Established);
    }
    host.now += 60_000_000_000;
    assert_eq!(host.judge(1, &facts(peer, 0)).reason, Reason::Rule);
    assert_eq!(host.judge(1, &facts(peer, 0)).reason, Reason::Rate);
}
