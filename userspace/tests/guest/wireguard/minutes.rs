//! What takes WireGuard minutes, all at once: giving up after 20 attempts (from
//! 90 s on), renewing a session after 120 s, and noticing after 15 s that the
//! other side has lost it.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    net::{INSIDE, Pair, wait},
    probes::{Labels, Since as _, probes, snapshot, told},
};

const HANDSHAKES: &str = "kldtrace_wireguard_handshakes";
const FAILURES: &str = "kldtrace_wireguard_handshake_failures";
const ABANDONED: &str = "kldtrace_wireguard_abandoned_packets";
const DROPPED: &str = "kldtrace_wireguard_dropped_packets";

#[test]
fn giving_up_renewing_and_losing_a_session() {
    let Some(mut probes) = probes(&[
        "wireguard.handshakes",
        "wireguard.handshake_failures",
        "wireguard.handshake_retries",
        "wireguard.abandoned_packets",
        "wireguard.dropped_packets",
    ]) else {
        return;
    };
    let (silent, old, lost) = (Pair::new("si"), Pair::new("ol"), Pair::new("ls"));
    let devices = [&silent, &old, &lost].map(|pair| pair.device(0));
    let [silent_device, old_device, lost_device] = &devices;
    silent.count_outgoing(0);
    silent.block(1);
    old.reach(0);
    let born = Instant::now();
    lost.reach(0);
    let before = snapshot(&mut probes);

    // Five packets wait for a session that never comes.
    let inside = INSIDE[1];
    silent.on(
        0,
        &format!("sh -c 'ping -q -c 5 -i 0.2 -W 1 {inside} >/dev/null 2>&1 || true'"),
    );
    // The responder forgets its session: a peer that is new to it.
    lost.remove_peer(1);
    lost.peer(1);
    wait("a handshake after silence", 60, || lost.ping(0, 1));
    let now = snapshot(&mut probes);
    let labels: Labels<'_> = &[("interface", lost_device), ("role", "initiator")];
    assert_eq!(now.since(&before, HANDSHAKES, labels), 1);
    let early: Labels<'_> = &[("interface", lost_device), ("reason", "early")];
    assert_eq!(now.since(&before, HANDSHAKES, early), 1);
    let other = lost.device(1);
    let new: Labels<'_> = &[("interface", &other), ("reason", "new")];
    assert_eq!(now.since(&before, HANDSHAKES, new), 1);

    wait("giving up", 150, || {
        let now = snapshot(&mut probes);
        let labels: Labels<'_> = &[("interface", silent_device), ("reason", "gave_up")];
        now.since(&before, FAILURES, labels) == 1
    });
    let now = snapshot(&mut probes);
    let ours: Labels<'_> = &[("interface", silent_device), ("peer", silent.peer_of(0))];
    let sent = silent.counted(0, "out1");
    println!("gave up after {sent} attempts");
    assert_eq!(sent, 20);
    let no_answer: Labels<'_> = &[("interface", silent_device), ("reason", "no_answer")];
    assert_eq!(now.since(&before, FAILURES, no_answer), sent - 1);
    let retries = "kldtrace_wireguard_handshake_retries";
    assert_eq!(now.since(&before, retries, ours), sent - 1);
    assert_eq!(now.since(&before, ABANDONED, ours), 5);
    let no_session: Labels<'_> = &[("interface", silent_device), ("reason", "no_session")];
    assert_eq!(now.since(&before, DROPPED, no_session), 5);
    assert_eq!(silent.statistic(0, "tx_dropped"), 5);
    let events = probes.take_events();
    let gave_up = told(
        &events,
        "handshake_failure",
        &[("interface", silent_device), ("reason", "gave_up")],
    );
    assert_eq!(gave_up.len(), 1, "{events:?}");
    println!("{}", gave_up[0].message);

    // Until the session is of age; then the first packet renews it.
    let rest = Duration::from_secs(122).saturating_sub(born.elapsed());
    thread::sleep(rest);
    old.reach(0);
    let other = old.device(1);
    let age = |device, role| {
        let now = snapshot(&mut probes);
        let labels: Labels<'_> = &[("interface", device), ("role", role), ("reason", "age")];
        now.since(&before, HANDSHAKES, labels)
    };
    let mut age = age;
    wait("a session renewed", 20, || {
        age(old_device, "initiator") == 1 && age(&other, "responder") == 1
    });
}
