//! Interfaces and the module go away, also in the middle of things.

use std::time::Duration;

use super::{
    super::{common::sh, machine::module, shared::shows},
    net::{INSIDE, Pair, wait},
    probes::{Labels, Since as _, attach, awaited, probes, snapshot, told},
};

const MESSAGES: &str = "kldtrace_wireguard_handshake_messages";
const LAST: &str = "kldtrace_wireguard_last_handshake_timestamp_seconds";
const ENTRIES: &str = "kldtrace_map_entries";

#[test]
fn an_interface_is_deleted_while_a_handshake_is_under_way() {
    let Some(mut probes) = probes(&["wireguard.handshake_messages"]) else {
        return;
    };
    let pair = Pair::new("de");
    let device = pair.device(0);
    pair.reach(0);
    pair.block(1);
    pair.remove_peer(0);
    pair.peer(0);
    pair.count_outgoing(0);
    let before = snapshot(&mut probes);
    pair.ping(0, 1);
    let under_way = snapshot(&mut probes);
    let ours: Labels<'_> = &[("interface", &device)];
    assert!(under_way.since(&before, MESSAGES, ours) > 0);
    let handshakes: Labels<'_> = &[("map", "wireguard_handshakes")];
    let started = under_way.integer(ENTRIES, handshakes);

    pair.on(0, &format!("ip link del {device}"));
    // The peer's end is a grace period away.
    wait("nothing under way", 20, || {
        snapshot(&mut probes).integer(ENTRIES, handshakes) == started - 1
    });
    let after = snapshot(&mut probes);
    // What was counted stays; what is, is not any more. After 5 s there is one
    // more attempt, which a machine that is slow may come to.
    let sent = pair.counted(0, "out1");
    assert_eq!(after.since(&before, MESSAGES, ours), sent);
    assert_eq!(after.series(LAST, ours).count(), 0);
    let entries =
        |snapshot: &super::super::common::Snapshot, map| snapshot.integer(ENTRIES, &[("map", map)]);
    assert!(entries(&after, "wireguard_peers") < entries(&under_way, "wireguard_peers"));
    drop(pair);
    wait("nothing left in the maps", 20, || {
        let now = snapshot(&mut probes);
        // The account of what finds no room is always there.
        entries(&now, "wireguard") == 1
            && entries(&now, "wireguard_peers") == 0
            && entries(&now, "wireguard_handshakes") == 0
    });
}

#[test]
fn the_module_is_unloaded_during_a_handshake_and_loaded_again() {
    if !module("wireguard") {
        return;
    }
    shows(&["wireguard.handshake_messages", "wireguard.received_bytes"]);
    let mut reader = attach();
    let pair = Pair::new("mo");
    let device = pair.device(0);
    let ours: Labels<'_> = &[("interface", &device), ("peer", pair.peer_of(0))];
    pair.reach(0);
    assert!(!told(&awaited(&mut reader), "handshake", ours).is_empty());
    let before = snapshot(&mut reader).integer(MESSAGES, ours);
    let bytes = "kldtrace_wireguard_received_bytes";
    let received = snapshot(&mut reader).integer(bytes, ours);
    assert!(before > 0 && received > 0);
    let latency = "kldtrace_wireguard_handshake_latency_seconds";
    assert_eq!(snapshot(&mut reader).histogram(latency, ours).count(), 1);
    // A handshake that will have no end.
    pair.block(1);
    pair.remove_peer(0);
    pair.peer(0);
    // Shorter than until the next attempt, after 5 s.
    let inside = INSIDE[1];
    pair.on(
        0,
        &format!("sh -c 'ping -q -c 1 -W 1 {inside} >/dev/null 2>&1 || true'"),
    );
    let under_way = snapshot(&mut reader).integer(MESSAGES, ours);
    assert_eq!(under_way, before + 1);
    // Both sides first: the module cannot go while there are interfaces.
    for side in 0..2 {
        let device = pair.device(side);
        pair.on(side, &format!("ip link del {device}"));
    }
    wait("the module is unloaded", 20, || {
        sh("rmmod wireguard 2>/dev/null && echo yes || echo no") == "yes\n"
    });
    reader.drain().unwrap();
    assert!(!reader.has("wireguard.handshakes"));
    let (_, is) = reader
        .signals()
        .into_iter()
        .find(|(signal, _)| signal.name == "wireguard.handshakes")
        .unwrap();
    println!("{}", is.reason().unwrap());
    assert!(is.reason().unwrap().contains("modprobe wireguard"));

    sh("modprobe wireguard");
    std::thread::sleep(Duration::from_millis(100));
    reader.drain().unwrap();
    assert!(reader.has("wireguard.handshakes"), "{:?}", reader.signals());
    // Its beginning is forgotten, and what was counted is not.
    let now = snapshot(&mut reader);
    let handshakes: Labels<'_> = &[("map", "wireguard_handshakes")];
    assert_eq!(now.integer(ENTRIES, handshakes), 0);
    assert_eq!(now.integer(MESSAGES, ours), under_way);
    pair.unblock(1);
    for side in 0..2 {
        pair.interface(side);
        pair.peer(side);
    }
    pair.reach(0);
    assert!(!told(&awaited(&mut reader), "handshake", ours).is_empty());
    let now = snapshot(&mut reader);
    let [_, again, _] = pair.dump(0);
    assert_eq!(now.integer(bytes, ours), received + again);
    assert_eq!(now.integer(MESSAGES, ours), under_way + before);
    assert_eq!(now.histogram(latency, ours).count(), 2);
}
