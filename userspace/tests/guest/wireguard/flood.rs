//! A flood of initiations: cookies are asked for, the queue overflows, and
//! nothing is lost from the count.

use std::{thread, time::Duration};

use super::{
    injected::record,
    net::{PORTS, Pair, UNDER, load_is_over, wait},
    probes::{Labels, Since as _, probes, snapshot},
};

#[test]
fn a_flood_is_asked_for_cookies_and_every_message_is_accounted_for() {
    let Some(mut probes) = probes(&[
        "wireguard.handshake_messages",
        "wireguard.handshake_failures",
        "wireguard.dropped_packets",
    ]) else {
        return;
    };
    let pair = Pair::underlay("fl");
    let initiation = record(&pair);
    pair.interface(1);
    pair.peer(1);
    pair.count_incoming(1);
    pair.count_outgoing(1);
    let device = pair.device(1);
    let before = snapshot(&mut probes);
    let injector = pair.socket(0, 3000);
    for _ in 0..6000 {
        injector.send_to(&initiation, (UNDER[1], PORTS[1])).unwrap();
    }
    let messages = "kldtrace_wireguard_handshake_messages";
    let received: Labels<'_> = &[
        ("interface", &device),
        ("direction", "received"),
        ("message", "initiation"),
    ];
    let full: Labels<'_> = &[("interface", &device), ("reason", "queue_full")];
    let dropped = "kldtrace_wireguard_dropped_packets";
    let mut told = [0, 0];
    wait("the queue is worked off", 120, || {
        let now = snapshot(&mut probes);
        told = [
            now.since(&before, messages, received),
            now.since(&before, dropped, full),
        ];
        told[0] + told[1] >= pair.counted(1, "in1")
    });
    thread::sleep(Duration::from_millis(500));
    let now = snapshot(&mut probes);
    let came = pair.counted(1, "in1");
    println!(
        "{came} came: {} looked at, {} beyond the queue",
        told[0], told[1]
    );
    assert_eq!(told[0] + told[1], came);
    let cookies: Labels<'_> = &[
        ("interface", &device),
        ("direction", "sent"),
        ("message", "cookie"),
    ];
    let cookies = now.since(&before, messages, cookies);
    assert_eq!(cookies, pair.counted(1, "out3"));
    let required: Labels<'_> = &[("interface", &device), ("reason", "cookie_required")];
    let failures = "kldtrace_wireguard_handshake_failures";
    assert_eq!(now.since(&before, failures, required), cookies);
    assert!(cookies > 0);
    // All but the one that was taken were refused for some reason.
    let ours: Labels<'_> = &[("interface", &device)];
    assert_eq!(now.since(&before, failures, ours), told[0] - 1);
    // Told are 50 a second of each kind; the rest is counted.
    let events = probes.take_events();
    let suppressed = now.since(&before, "kldtrace_losses", &[("reason", "wireguard_event")]);
    println!(
        "{cookies} cookies; {} events, {suppressed} suppressed",
        events.len()
    );
    assert!(suppressed > 0);
    load_is_over();
}
