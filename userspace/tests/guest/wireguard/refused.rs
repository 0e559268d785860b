//! Messages that only a stranger would send: garbage that is made for the
//! interface, the same again at once, and many with a cookie while it is busy.

use std::{fs, net::UdpSocket, thread, time::Duration};

use super::{
    super::common::Snapshot,
    injected::record,
    net::{INSIDE, PORTS, Pair, UNDER, load_is_over, wait},
    probes::{Labels, Since as _, probes, snapshot, told},
};

const FAILURES: &str = "kldtrace_wireguard_handshake_failures";
const MESSAGES: &str = "kldtrace_wireguard_handshake_messages";

/// A private key that is known, for messages that are known.
const KEY: &str = "AAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHB0c=";

/// An initiation of nothing, from the ephemeral key 9, with this mac1.
fn garbage(mac: [u8; 16]) -> [u8; 148] {
    let mut message = [0; 148];
    message[0] = 1;
    message[8] = 9;
    message[116..132].copy_from_slice(&mac);
    message
}

/// Its mac1 for the public key of [`KEY`], by Python's hashlib.blake2s:
/// `blake2s(message[:116], key=blake2s(b"mac1----" + public).digest(),
/// digest_size=16)`.
const FOR_KEY: [u8; 16] = [
    37, 248, 245, 56, 27, 224, 44, 21, 153, 86, 108, 53, 56, 88, 65, 8,
];
/// The same with a key of zeros, which an interface without one has.
const FOR_NONE: [u8; 16] = [
    188, 73, 161, 2, 251, 28, 23, 44, 171, 90, 198, 5, 33, 169, 75, 83,
];

fn reasons<'a>(device: &'a str, reason: &'a str) -> [(&'a str, &'a str); 2] {
    [("interface", device), ("reason", reason)]
}

#[test]
fn garbage_with_a_good_mac_is_undecryptable() {
    let Some(mut probes) = probes(&["wireguard.handshake_failures"]) else {
        return;
    };
    let pair = Pair::underlay("ud");
    fs::write("/tmp/ud1.key", KEY).unwrap();
    pair.interface(1);
    pair.peer(1);
    let device = pair.device(1);
    let injector = pair.socket(0, 3000);
    let start = snapshot(&mut probes);
    let mut before = snapshot(&mut probes);
    // Without its key, the interface looks at nothing that it gets.
    for (mac, times) in [(FOR_KEY, 5), (FOR_NONE, 3)] {
        if mac == FOR_NONE {
            pair.on(1, &format!("wg set {device} private-key /dev/null"));
        }
        for _ in 0..times {
            injector
                .send_to(&garbage(mac), (UNDER[1], PORTS[1]))
                .unwrap();
        }
        let why = reasons(&device, "undecryptable");
        let mut now = snapshot(&mut probes);
        wait("all are refused", 20, || {
            now = snapshot(&mut probes);
            now.since(&before, FAILURES, &[("interface", &device)]) >= times
        });
        assert_eq!(now.since(&before, FAILURES, &why), times);
        before = now;
    }
    // Nothing else was wrong with them, and no peer is blamed.
    let ours: Labels<'_> = &[("interface", &device)];
    assert_eq!(before.since(&start, FAILURES, ours), 8);
    let nobody: Labels<'_> = &[("interface", &device), ("peer", "")];
    assert_eq!(before.since(&start, FAILURES, nobody), 8);
    let events = probes.take_events();
    let told = told(
        &events,
        "handshake_failure",
        &reasons(&device, "undecryptable"),
    );
    assert_eq!(told.len(), 8);
    println!("{}", told[0].message);
    assert!(
        told[0].message.contains("10.0.0.1:3000"),
        "{}",
        told[0].message
    );
}

#[test]
fn the_same_at_once_is_a_flood_and_later_a_replay() {
    let Some(mut probes) = probes(&["wireguard.handshake_failures"]) else {
        return;
    };
    let pair = Pair::underlay("fr");
    let initiation = record(&pair);
    pair.interface(1);
    let device = pair.device(1);
    let injector = pair.socket(0, 3000);
    let (flood, replay) = (reasons(&device, "flood"), reasons(&device, "replay"));
    let ours: Labels<'_> = &[("interface", &device)];
    let send = |times| {
        for _ in 0..times {
            injector.send_to(&initiation, (UNDER[1], PORTS[1])).unwrap();
        }
    };
    let mut floods = 0;
    // How many come within 20 ms of the first is up to the machine.
    for round in 0..20 {
        // A new peer has seen nothing yet: it takes the first.
        pair.peer(1);
        let before = snapshot(&mut probes);
        send(10);
        let mut now = snapshot(&mut probes);
        wait("nine of ten refused", 20, || {
            now = snapshot(&mut probes);
            now.since(&before, FAILURES, ours) >= 9
        });
        let grew = [flood, replay].map(|why| now.since(&before, FAILURES, &why));
        println!("round {round}: {} flood, {} replay", grew[0], grew[1]);
        assert_eq!(grew[0] + grew[1], 9);
        floods += grew[0];
        if floods > 0 {
            break;
        }
        pair.remove_peer(1);
    }
    assert!(floods > 0);
    thread::sleep(Duration::from_millis(500));
    let before = snapshot(&mut probes);
    send(6);
    let mut now = snapshot(&mut probes);
    wait("six refused", 20, || {
        now = snapshot(&mut probes);
        now.since(&before, FAILURES, ours) >= 6
    });
    assert_eq!(now.since(&before, FAILURES, &flood), 0);
    assert_eq!(now.since(&before, FAILURES, &replay), 6);
}

/// The public key of [`KEY`], by `wg pubkey`.
const PUBLIC: &str = "E75P6uryBMf9M1j8nAByGIHRdCeBKCJ+xnTzf3/pe20=";

/// As many as make the interface busy (messages.h:
/// MAX_QUEUED_INCOMING_HANDSHAKES / 8) for a second, and fewer than its queue
/// holds. The first are looked at, which takes long; the rest pile up.
fn make_busy(from: &UdpSocket) {
    for _ in 0..1500 {
        from.send_to(&garbage(FOR_KEY), (UNDER[1], PORTS[1]))
            .unwrap();
    }
}

#[test]
fn who_has_a_cookie_and_sends_too_much_is_rate_limited() {
    let Some(mut probes) = probes(&[
        "wireguard.handshake_failures",
        "wireguard.handshake_messages",
    ]) else {
        return;
    };
    let mut pair = Pair::underlay("rl");
    fs::write("/tmp/rl1.key", KEY).unwrap();
    PUBLIC.clone_into(&mut pair.keys[1]);
    pair.interface(1);
    pair.peer(1);
    pair.interface(0);
    pair.count_incoming(0);
    pair.count_incoming(1);
    let (device, here) = (pair.device(1), pair.device(0));
    let noise = pair.socket(1, 3000);
    let before = snapshot(&mut probes);

    // Side 0 is asked for a cookie, and has it in its next attempt.
    wait("a cookie", 100, || {
        pair.peer(0);
        make_busy(&noise);
        // No answer: the attempt is refused. The next comes after 5 s.
        let inside = INSIDE[1];
        pair.on(
            0,
            &format!("sh -c 'ping -q -c 1 -W 1 {inside} >/dev/null 2>&1 || true'"),
        );
        let asked = pair.counted(0, "in3") > 0;
        if !asked {
            // It was too late, and has a session: once more.
            pair.remove_peer(0);
        }
        asked
    });
    let listener = pair.socket(1, 2001);
    let key = &pair.keys[1];
    let elsewhere = format!("wg set {here} peer {key} endpoint {}:2001", UNDER[1]);
    pair.on(0, &elsewhere);
    let mut initiation = [0; 256];
    let (length, from) = listener.recv_from(&mut initiation).unwrap();
    assert_eq!((length, initiation[0], from.port()), (148, 1, PORTS[0]));
    let initiation = &initiation[..length];
    assert!(initiation[132..] != [0; 16], "no mac2");
    let cookies: Labels<'_> = &[
        ("interface", &here),
        ("direction", "received"),
        ("message", "cookie"),
    ];
    let now = snapshot(&mut probes);
    let told = now.since(&before, MESSAGES, cookies);
    assert_eq!(told, pair.counted(0, "in3"));

    // The cookie is good for this address and port.
    pair.on(0, &format!("ip link del {here}"));
    let sender = pair.socket(0, PORTS[0]);
    wait("the queue is empty", 60, || {
        all_seen(&mut probes, &pair, &before)
    });
    let idle = snapshot(&mut probes);
    let came = pair.counted(1, "in1");
    make_busy(&noise);
    for _ in 0..100 {
        sender.send_to(initiation, (UNDER[1], PORTS[1])).unwrap();
    }
    wait("all are looked at", 60, || {
        all_seen(&mut probes, &pair, &before)
    });
    let now = snapshot(&mut probes);
    let grew = |reason| now.since(&idle, FAILURES, &reasons(&device, reason));
    let others = grew("undecryptable") + grew("cookie_required");
    assert_eq!(pair.counted(1, "in1") - came, others + 100);
    let limited = grew("rate_limited");
    println!(
        "of 100 with a cookie: {limited} rate limited, {} flood, {} replay",
        grew("flood"),
        grew("replay"),
    );
    // The first is taken; of a burst of 5 and 20 in a second the rest is
    // refused for other reasons.
    assert_eq!(limited + grew("flood") + grew("replay"), 99);
    assert!(limited > 0);
    load_is_over();
}

/// Whether every initiation that came in has been looked at or dropped.
fn all_seen(
    probes: &mut kldtrace::signals::reader::Reader,
    pair: &Pair,
    before: &Snapshot,
) -> bool {
    let device = pair.device(1);
    let came = pair.counted(1, "in1");
    let now = snapshot(probes);
    let received: Labels<'_> = &[
        ("interface", &device),
        ("direction", "received"),
        ("message", "initiation"),
    ];
    let full = reasons(&device, "queue_full");
    now.since(before, MESSAGES, received)
        + now.since(before, "kldtrace_wireguard_dropped_packets", &full)
        >= came
}
