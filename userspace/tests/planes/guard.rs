//! Ports of WireGuard, and how many SYNs one source may send.

use kldtrace::planes::{compile, explain::packet, host::Host};
use kldtrace_abi::plane::{Action, Facts, Link, Message, Outcome, Reason, parse};

use super::{agree::read, packet::Packet};

const HEAD: &str = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n";
const GUARD: &str = "[plane.wireguard]\nports = [51820]\nrate = \"1/m\"\nburst = 2\n";
const ALL: &str = "[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\n";

fn host(rules: &str) -> Host {
    let compiled = compile::image(&read(&format!("{HEAD}{rules}")), 1).unwrap();
    Host::new(compiled.cells)
}

fn facts(text: &str) -> Facts {
    packet(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn reason(host: &mut Host, text: &str) -> Reason {
    host.judge(1, &facts(text)).reason
}

const TO: &str = "udp 192.0.2.9:51820 > 198.51.100.1:51820";

#[test]
fn nothing_but_messages_reaches_a_port_of_wireguard() {
    // A rule that allows all does not open these ports.
    let mut host = host(&format!("{GUARD}{ALL}"));
    for message in ["initiation", "response", "cookie", "data"] {
        let outcome = host.judge(1, &facts(&format!("{TO} {message}")));
        assert_eq!((outcome.reason, outcome.rule), (Reason::Rule, 1));
    }
    let dropped = Outcome {
        action: Action::Drop,
        reason: Reason::WireGuard,
        detail: 0,
        limited: 0,
        rule: 0,
        counter: 0,
    };
    for _ in 0..2 {
        assert_eq!(host.judge(1, &facts(TO)), dropped);
    }
    let other = "udp 192.0.2.9:51820 > 198.51.100.1:51821";
    assert_eq!(host.judge(1, &facts(other)).rule, 2);
}

/// Also not what comes from a peer whose flow is known.
#[test]
fn a_known_flow_opens_the_port_for_messages_of_sessions_alone() {
    let mut host = host(GUARD);
    let out = "udp 198.51.100.1:51820 > 192.0.2.9:51820 data";
    host.leaves(1, &facts(out));
    for _ in 0..2 {
        for message in ["response", "cookie", "data"] {
            let text = format!("{TO} {message}");
            assert_eq!(reason(&mut host, &text), Reason::Established);
        }
        assert_eq!(reason(&mut host, TO), Reason::WireGuard);
    }
    // Work for the node is counted, whoever asks for it.
    let initiation = format!("{TO} initiation");
    let reasons = [0; 3].map(|_| reason(&mut host, &initiation));
    assert_eq!(reasons, [Reason::Rule, Reason::Rule, Reason::Rate]);
    let other = "udp 192.0.2.8:51820 > 198.51.100.1:51820 initiation";
    assert_eq!(reason(&mut host, other), Reason::Rule);
    host.now += 60_000_000_000;
    assert_eq!(reason(&mut host, &initiation), Reason::Rule);
}

/// In audit mode it passes, and ends no session either.
#[test]
fn what_is_no_message_ends_no_session_in_audit_mode() {
    let text = format!("{HEAD}{GUARD}").replace("enforce", "audit");
    let compiled = compile::image(&read(&text), 1).unwrap();
    let mut host = Host::new(compiled.cells);
    host.leaves(1, &facts("udp 198.51.100.1:51820 > 192.0.2.9:51820 data"));
    let data = format!("{TO} data");
    assert_eq!(reason(&mut host, &data), Reason::Established);
    let none = host.judge(1, &facts(TO));
    assert_eq!(
        (none.action, none.reason),
        (Action::WouldDrop, Reason::WireGuard)
    );
    host.memos.clear();
    assert_eq!(reason(&mut host, &data), Reason::Established);
}

/// What a message is by its bytes: of each type the length on both sides of the
/// right one, other types, and reserved bytes that are not 0.
#[test]
fn messages_are_told_by_type_and_length() {
    let message = |word, length| {
        let packet = Packet {
            protocol: 17,
            datagram: Some((word, length)),
            ..Packet::tcp(
                "192.0.2.9".parse().unwrap(),
                "198.51.100.1".parse().unwrap(),
                51820,
            )
        };
        parse(&packet.bytes()[..], Link::Bare).message
    };
    for (word, exact, is) in [
        (1, 148, Message::Initiation),
        (2, 92, Message::Response),
        (3, 64, Message::Cookie),
    ] {
        for length in 4..300 {
            let expected = if length == exact { is } else { Message::None };
            assert_eq!(message(word, length), expected, "{word} {length}");
        }
        for reserved in [1 << 8, 1 << 16, 1 << 31] {
            assert_eq!(message(word | reserved, exact), Message::None);
        }
    }
    for length in 4..1600 {
        let expected = if length >= 32 {
            Message::Data
        } else {
            Message::None
        };
        assert_eq!(message(4, length), expected, "{length}");
        assert_eq!(message(0, length), Message::None);
        assert_eq!(message(5, length), Message::None);
    }
}

#[test]
fn syns_of_one_source_are_counted_and_nothing_else() {
    let mut host = host(&format!("syn_rate = \"1/m\"\nsyn_burst = 2\n{ALL}"));
    let mut reasons = |texts: [&str; 3]| texts.map(|text| reason(&mut host, text));
    let all = [Reason::Rule; 3];
    assert_eq!(reasons(["udp 192.0.2.9:1 > 198.51.100.1:22"; 3]), all);
    assert_eq!(reasons(["tcp 192.0.2.9:1 > 198.51.100.1:22 ack"; 3]), all);
    let over = [Reason::Rule, Reason::Rule, Reason::Rate];
    // Whatever their ports, as a source has many.
    let syns = [
        "tcp 192.0.2.9:1 > 198.51.100.1:22",
        "tcp 192.0.2.9:2 > 198.51.100.1:23",
        "tcp 192.0.2.9:3 > 198.51.100.1:24",
    ];
    assert_eq!(reasons(syns), over);
    // A host of IPv6 has all of its /64.
    let syns = [
        "tcp [2001:db8::1]:1 > [2001:db8:1::1]:22",
        "tcp [2001:db8::2]:1 > [2001:db8:1::1]:22",
        "tcp [2001:db8::3]:1 > [2001:db8:1::1]:22",
    ];
    assert_eq!(reasons(syns), over);
    let other = "tcp [2001:db8:0:1::3]:1 > [2001:db8:1::1]:22";
    assert_eq!(reasons([other; 3]), over);
    assert_eq!(reasons(["udp 192.0.2.9:1 > 198.51.100.1:22"; 3]), all);
}

#[test]
fn what_is_wrong_with_a_guard_is_said() {
    for (text, message) in [
        ("[plane.wireguard]\n", "needs 1 to 4 ports, no ranges"),
        (
            "[plane.wireguard]\nports = [1, 2, 3, 4, 5]\n",
            "needs 1 to 4 ports",
        ),
        ("[plane.wireguard]\nports = [\"1-2\"]\n", "no ranges"),
        ("[plane.wireguard]\nports = [0]\n", "needs 1 to 4 ports"),
        (
            "[plane.wireguard]\nports = [1]\nburst = 3\n",
            "burst in [plane.wireguard] must be with a rate",
        ),
        (
            "syn_burst = 3\n",
            "syn_burst in [[plane]] must be with a syn_rate",
        ),
        (
            "[plane.wireguard]\nports = [1]\n[[plane.rule]]\nname = \"wireguard\"\nverdict = \"allow\"\n",
            "a second rule \"wireguard\" here",
        ),
    ] {
        let text = format!("{HEAD}{text}");
        let files = super::agree::no_files;
        let error = kldtrace::planes::read::parse(&text, "policy.toml", &files).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
    }
}
