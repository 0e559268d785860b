//! How long handshakes take, by the delay that was set.

use std::time::Duration;

use kldtrace_exporters::model::Histogram;

use super::{
    super::{
        common::sh,
        digested::{compare, one, seconds},
    },
    net::{INSIDE, Pair, wait},
    probes::{Labels, Since as _, probes, snapshot, told},
    wire::{Seen, Wire},
};

const LATENCY: &str = "kldtrace_wireguard_handshake_latency_seconds";
const P90: &str = "kldtrace_wireguard_handshake_p90_seconds";
const HANDSHAKES: &str = "kldtrace_wireguard_handshakes";
const MESSAGES: &str = "kldtrace_wireguard_handshake_messages";

/// One handshake's time, which must be the only one since.
fn only(before: &Histogram, after: &Histogram) -> Duration {
    assert_eq!(after.count() - before.count(), 1);
    Duration::from_nanos(after.sum_ns - before.sum_ns)
}

/// What both roles wait for, by the packets of one handshake: the initiator
/// from what its interface was given to send until the response has come, the
/// responder from the initiation until the first packet of data has come.
fn on_the_wire(pair: &Pair, handshake: impl FnOnce()) -> [Duration; 2] {
    let inside = Wire::new(pair, 0, &pair.device(0));
    let wires = [0, 1].map(|side| Wire::new(pair, side, &format!("u{side}")));
    handshake();
    let asked = inside.seen();
    let asked = asked.iter().find(|seen| seen.sent).unwrap().at;
    let [here, there] = wires.map(|wire| wire.seen());
    let came = |seen: &[Seen], message| {
        let mut all = seen.iter().filter(|seen| !seen.sent);
        all.find(|seen| seen.is(message)).unwrap().at
    };
    let spans = [(asked, came(&here, 2)), (came(&there, 1), came(&there, 4))];
    spans.map(|(from, to)| to.duration_since(from).unwrap())
}

#[test]
fn a_handshake_takes_the_delay_there_and_back() {
    let Some(mut probes) = probes(&[
        "wireguard.handshake_latency",
        "wireguard.handshakes",
        "wireguard.handshake_messages",
    ]) else {
        return;
    };
    let pair = Pair::new("rt");
    pair.count_incoming(0);
    pair.count_incoming(1);
    let (here, there) = (pair.device(0), pair.device(1));
    let initiator: Labels<'_> = &[
        ("interface", &here),
        ("plane", ""),
        ("peer", pair.peer_of(0)),
        ("role", "initiator"),
    ];
    let responder: Labels<'_> = &[
        ("interface", &there),
        ("peer", pair.peer_of(1)),
        ("role", "responder"),
    ];
    let mut times: Vec<([Duration; 2], [Duration; 2])> = Vec::new();
    for delay in [0, 400] {
        pair.delay(0, delay);
        pair.delay(1, delay);
        // A new peer has no session.
        pair.remove_peer(0);
        pair.peer(0);
        let before = snapshot(&mut probes);
        let wire = on_the_wire(&pair, || pair.reach(0));
        let after = snapshot(&mut probes);
        let took = [initiator, responder].map(|labels| {
            only(
                &before.histogram(LATENCY, labels),
                &after.histogram(LATENCY, labels),
            )
        });
        println!(
            "delay {delay} ms each way: initiator and responder {took:?}, on the wire {wire:?}"
        );
        times.push((took, wire));
        for labels in [initiator, responder] {
            assert_eq!(after.since(&before, HANDSHAKES, labels), 1);
        }
    }
    // Of a histogram, the count and the bucket; of the sum, all of it. A guest
    // may take longer than the delays, on a machine that others use: by how
    // much, the packets tell.
    let twice = Duration::from_millis(800);
    let [(without, _), (with, wire)] = times.try_into().unwrap();
    for ((without, with), wire) in without.into_iter().zip(with).zip(wire) {
        assert!(with >= twice && wire >= twice, "{with:?}, {wire:?}");
        // What is between a packet and the function that it is for.
        let slack = without.max(Duration::from_millis(72));
        assert!(
            with.abs_diff(wire) <= slack,
            "{without:?}, {with:?}, {wire:?}"
        );
    }
    // Both handshakes with the first namespace as initiator.
    let after = snapshot(&mut probes);
    let reason: Labels<'_> = &[("interface", &here), ("reason", "new")];
    assert_eq!(after.integer(HANDSHAKES, reason), 2);
    let sent = |device, message| {
        after.integer(
            MESSAGES,
            &[
                ("interface", device),
                ("direction", "sent"),
                ("message", message),
            ],
        )
    };
    let received = |device, message| {
        after.integer(
            MESSAGES,
            &[
                ("interface", device),
                ("direction", "received"),
                ("message", message),
            ],
        )
    };
    assert_eq!(sent(&here, "initiation"), pair.counted(1, "in1"));
    assert_eq!(received(&there, "initiation"), pair.counted(1, "in1"));
    assert_eq!(sent(&there, "response"), pair.counted(0, "in2"));
    assert_eq!(received(&here, "response"), pair.counted(0, "in2"));
    assert_eq!((pair.counted(1, "in1"), pair.counted(0, "in2")), (2, 2));
    let families = probes.exported(Duration::MAX).unwrap();
    println!("{:?}", compare(&families));
    let p90 = one(&families, P90, &initiator[..3]);
    assert!((0.75..10.0).contains(&seconds(&p90)), "{p90:?}");
    let events = probes.take_events();
    for labels in [initiator, responder] {
        let told = told(&events, "handshake", labels);
        assert_eq!(told.len(), 2, "{events:?}");
        println!("{}", told[1].message);
    }
}

#[test]
fn only_the_attempt_that_was_answered_is_timed() {
    let Some(mut probes) = probes(&[
        "wireguard.handshake_latency",
        "wireguard.handshake_messages",
        "wireguard.handshake_retries",
        "wireguard.handshake_failures",
    ]) else {
        return;
    };
    let pair = Pair::new("lo");
    pair.count_outgoing(0);
    pair.block(1);
    let before = snapshot(&mut probes);
    let here = pair.device(0);
    let ours: Labels<'_> = &[("interface", &here), ("peer", pair.peer_of(0))];
    // Packets all the time: they begin the next attempt before the timer does.
    let (namespace, inside) = (pair.namespace(0), INSIDE[1]);
    sh(&format!(
        "ip netns exec {namespace} ping -q -i 0.1 -c 200 {inside} >/dev/null 2>&1 &"
    ));
    wait("two attempts without an answer", 30, || {
        pair.counted(0, "out1") == 3
    });
    // Two of three were lost; the third, too, had not arrived.
    pair.unblock(1);
    pair.reach(0);
    let after = snapshot(&mut probes);
    let attempts = pair.counted(0, "out1");
    let grew = |metric, labels| after.since(&before, metric, labels);
    let sent: Labels<'_> = &[("interface", &here), ("direction", "sent")];
    assert_eq!(grew(MESSAGES, sent), attempts);
    assert_eq!(
        grew("kldtrace_wireguard_handshake_retries", ours),
        attempts - 1
    );
    let failures = grew("kldtrace_wireguard_handshake_failures", ours);
    assert_eq!(failures, attempts - 1);
    let latency = after.histogram(LATENCY, ours);
    assert_eq!(latency.count(), 1);
    // Less than from the first attempt, 5 s before the second.
    assert!(latency.sum_ns < 4_000_000_000, "{latency:?}");
}
