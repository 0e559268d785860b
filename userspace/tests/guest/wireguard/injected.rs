//! Messages that should be refused: recorded, spoilt and sent again.

use std::{net::UdpSocket, thread, time::Duration};

use super::{
    super::common::Snapshot,
    net::{PORTS, Pair, UNDER, wait},
    probes::{Labels, Since as _, probes, snapshot, told},
};
use kldtrace::signals::reader::Reader;

const FAILURES: &str = "kldtrace_wireguard_handshake_failures";
const MESSAGES: &str = "kldtrace_wireguard_handshake_messages";

/// Records an initiation of side 0, of which side 1 has no interface yet. From
/// then on side 0 is mute: its next attempts are not awaited here.
pub fn record(pair: &Pair) -> Vec<u8> {
    let listener = pair.socket(1, PORTS[1]);
    pair.interface(0);
    pair.peer(0);
    pair.ping(0, 1);
    let mut message = [0; 256];
    let (length, _) = listener.recv_from(&mut message).unwrap();
    assert_eq!((length, message[0]), (148, 1));
    pair.mute(0);
    message[..length].to_vec()
}

/// Sends a message some times, and waits until a counter has grown as much.
fn send(
    probes: &mut Reader,
    from: &UdpSocket,
    message: &[u8],
    times: u64,
    to: u16,
    labels: Labels<'_>,
) -> Snapshot {
    let before = snapshot(probes);
    for _ in 0..times {
        from.send_to(message, (UNDER[usize::from(to == PORTS[1])], to))
            .unwrap();
    }
    let mut last = snapshot(probes);
    wait(&format!("{times} times {labels:?}"), 20, || {
        last = snapshot(probes);
        last.since(&before, FAILURES, labels) >= times
    });
    assert_eq!(last.since(&before, FAILURES, labels), times);
    last
}

#[test]
fn messages_are_refused_for_what_is_wrong_with_them() {
    let Some(mut probes) = probes(&[
        "wireguard.handshake_failures",
        "wireguard.handshake_messages",
    ]) else {
        return;
    };
    let pair = Pair::underlay("in");
    let initiation = record(&pair);
    // The interface of side 1 knows no peer yet.
    pair.interface(1);
    pair.count_incoming(1);
    let device = pair.device(1);
    let injector = pair.socket(0, 3000);
    let port = PORTS[1];

    let mut spoilt = initiation.clone();
    spoilt[120] ^= 1;
    let why: Labels<'_> = &[
        ("interface", &device),
        ("peer", ""),
        ("reason", "invalid_mac"),
    ];
    send(&mut probes, &injector, &spoilt, 7, port, why);

    let why: Labels<'_> = &[
        ("interface", &device),
        ("peer", ""),
        ("reason", "unknown_peer"),
    ];
    send(&mut probes, &injector, &initiation, 3, port, why);
    let events = probes.take_events();
    let strangers = told(&events, "handshake_failure", why);
    assert_eq!(strangers.len(), 3);
    assert!(
        strangers[0].message.contains("10.0.0.1:3000")
            && strangers[0].message.contains(&pair.keys[0][..8]),
        "{}",
        strangers[0].message
    );
    println!("{}", strangers[0].message);

    // Now it is a peer: the first is taken, and answered; the next is a replay.
    pair.peer(1);
    injector.send_to(&initiation, (UNDER[1], port)).unwrap();
    let mut response = [0; 256];
    let (length, _) = injector.recv_from(&mut response).unwrap();
    assert_eq!((length, response[0]), (92, 2));
    thread::sleep(Duration::from_millis(100));
    let why: Labels<'_> = &[
        ("interface", &device),
        ("peer", pair.peer_of(1)),
        ("reason", "replay"),
    ];
    send(&mut probes, &injector, &initiation, 5, port, why);

    // The response to the recorded initiation, once taken, once too late.
    let back = PORTS[0];
    let response = &response[..length];
    let here = pair.device(0);
    injector.send_to(response, (UNDER[0], back)).unwrap();
    thread::sleep(Duration::from_millis(500));
    let why: Labels<'_> = &[
        ("interface", &here),
        ("peer", ""),
        ("reason", "response_refused"),
    ];
    send(&mut probes, &injector, response, 4, back, why);

    let now = snapshot(&mut probes);
    let received: Labels<'_> = &[
        ("interface", &device),
        ("direction", "received"),
        ("message", "initiation"),
    ];
    assert_eq!(now.integer(MESSAGES, received), pair.counted(1, "in1"));
}
