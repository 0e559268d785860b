//! Bytes, packets and last handshakes, as `wg` and the kernel say.

use std::time::Duration;

use kldtrace::{catalogue, kernel::loader::Options};
use kldtrace_exporters::model::Value;

use super::{
    super::{digested::one, machine::module, shared::patient},
    net::{INSIDE, PORTS, Pair},
    probes::{Labels, Since as _, probes, snapshot},
};

const RECEIVED: &str = "kldtrace_wireguard_received_bytes";
const SENT: &str = "kldtrace_wireguard_sent_bytes";
const LAST: &str = "kldtrace_wireguard_last_handshake_timestamp_seconds";
const PACKETS: &str = "kldtrace_wireguard_packets";
const DROPPED: &str = "kldtrace_wireguard_dropped_packets";

#[test]
fn bytes_and_last_handshakes_are_those_of_wg() {
    let Some(mut probes) = probes(&[
        "wireguard.received_bytes",
        "wireguard.sent_bytes",
        "wireguard.last_handshake",
        "wireguard.packets",
    ]) else {
        return;
    };
    let pair = Pair::new("by");
    pair.reach(0);
    assert!(pair.ping(0, 5) && pair.ping(1, 3));
    let now = snapshot(&mut probes);
    for side in 0..2 {
        let device = pair.device(side);
        let ours: Labels<'_> = &[("interface", &device), ("peer", pair.peer_of(side))];
        let [last, received, sent] = pair.dump(side);
        assert_eq!(now.integer(RECEIVED, ours), received);
        assert_eq!(now.integer(SENT, ours), sent);
        assert!(received > 0 && sent > 0 && last > 0);
        let told: Vec<_> = now.series(LAST, ours).map(|series| &series.value).collect();
        let [Value::Float(told)] = told[..] else {
            panic!("{told:?}");
        };
        // wg shows whole seconds.
        assert!((told.floor() - last as f64).abs() < 0.5, "{told} {last}");
        for (direction, name) in [("received", "rx_packets"), ("sent", "tx_packets")] {
            let labels: Labels<'_> = &[("interface", &device), ("direction", direction)];
            assert_eq!(now.integer(PACKETS, labels), pair.statistic(side, name));
        }
    }
}

/// The wall clock is ahead for as long as this lives.
struct Ahead(libc::time_t);

impl Ahead {
    fn by(seconds: libc::time_t) -> Self {
        shift(seconds);
        Self(seconds)
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        shift(-self.0);
    }
}

fn shift(seconds: libc::time_t) {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: system calls on a value of ours.
    let set = unsafe {
        libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut now);
        now.tv_sec += seconds;
        libc::clock_settime(libc::CLOCK_REALTIME, &raw const now)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn what_is_sent_without_a_session_is_told() {
    const SENT_5M: &str = "kldtrace_wireguard_sent_5m_bytes";
    const EXPIRED: &str = "kldtrace_wireguard_expired_session_timestamp_seconds";
    if !module("wireguard") {
        return;
    }
    let pair = Pair::new("ex");
    pair.reach(0);
    let device = pair.device(0);
    let ours: Labels<'_> = &[("interface", &device), ("peer", pair.peer_of(0))];
    let wanted = ["wireguard.sent_bytes", "wireguard.last_handshake"];
    let wanted = wanted.map(|name| catalogue::find(name).unwrap());
    let mut reader = patient(&wanted, &Options::default());
    let mut exported = || reader.exported(Duration::MAX).unwrap();
    // It was sent before anybody looked.
    exported();
    let before = pair.dump(0)[2];
    assert!(before > 0 && pair.ping(0, 5));
    let families = exported();
    let sent = pair.dump(0)[2] - before;
    assert_eq!(one(&families, SENT_5M, ours), Value::Integer(sent));
    let expired = families.iter().find(|family| family.name == EXPIRED);
    assert_eq!(expired.unwrap().series, []);
    let families = {
        // A session lives for three minutes.
        let _ahead = Ahead::by(185);
        exported()
    };
    assert_eq!(one(&families, EXPIRED, ours), one(&families, LAST, ours));
}

#[test]
fn bytes_go_on_when_a_peer_is_removed_and_comes_back() {
    let Some(mut probes) = probes(&["wireguard.received_bytes", "wireguard.sent_bytes"]) else {
        return;
    };
    let pair = Pair::new("re");
    let device = pair.device(0);
    let ours: Labels<'_> = &[("interface", &device), ("peer", pair.peer_of(0))];
    let mut sums = [0, 0];
    for round in 0..3 {
        pair.reach(0);
        let [_, received, sent] = pair.dump(0);
        // Not looked at between this and the removal.
        pair.remove_peer(0);
        sums[0] += received;
        sums[1] += sent;
        let now = snapshot(&mut probes);
        assert_eq!(now.integer(RECEIVED, ours), sums[0], "round {round}");
        assert_eq!(now.integer(SENT, ours), sums[1], "round {round}");
        assert_eq!(now.series(LAST, ours).count(), 0);
        pair.peer(0);
    }
}

#[test]
fn packets_without_a_peer_are_counted_by_the_interface() {
    let Some(mut probes) = probes(&["wireguard.dropped_packets"]) else {
        return;
    };
    let pair = Pair::new("np");
    let device = pair.device(0);
    let before = snapshot(&mut probes);
    // In the interface's prefix, and nobody's allowed address.
    for _ in 0..4 {
        // Ends at the first error.
        pair.on(
            0,
            "sh -c 'ping -q -c 1 -W 1 10.1.0.77 >/dev/null 2>&1 || true'",
        );
    }
    let after = snapshot(&mut probes);
    let labels: Labels<'_> = &[("interface", &device), ("reason", "no_peer")];
    let grew = after.since(&before, DROPPED, labels);
    assert_eq!(grew, 4);
    assert_eq!(
        after.integer(DROPPED, labels),
        pair.statistic(0, "tx_errors")
    );
}

#[test]
fn refused_data_packets_are_those_that_were_spoilt() {
    let Some(mut probes) = probes(&["wireguard.refused_packets"]) else {
        return;
    };
    let pair = Pair::new("sp");
    pair.reach(0);
    let (device, port, inside) = (pair.device(1), PORTS[1], INSIDE[1]);
    let ours: Labels<'_> = &[("interface", &device), ("peer", pair.peer_of(1))];
    let refused = "kldtrace_wireguard_refused_packets";
    pair.count_incoming(1);
    let before = snapshot(&mut probes);
    let (packets, messages) = (pair.statistic(1, "rx_packets"), pair.counted(1, "in4"));

    // Twice the same: the second has a counter that was seen.
    pair.on(0, "tc qdisc replace dev u0 root netem duplicate 100%");
    pair.on(0, &format!("ping -q -c 20 -i 0.1 {inside}"));
    pair.on(0, "tc qdisc del dev u0 root");
    let after = snapshot(&mut probes);
    let messages_now = pair.counted(1, "in4");
    let good = pair.statistic(1, "rx_packets") - packets;
    let grew = after.since(&before, refused, ours);
    println!("{grew} of {} seen before", messages_now - messages);
    assert_eq!(grew, messages_now - messages - good);
    assert!(grew >= 20, "{grew}");

    // One bit of the ciphertext turned by the firewall, which mends the
    // checksum of UDP: it does not decrypt.
    pair.on(
        1,
        &format!(
            "nft 'add table ip s; add counter ip s n; \
             add chain ip s in {{ type filter hook prerouting priority -250; }}; \
             add rule ip s in udp dport {port} @th,64,8 4 @th,192,16 set 0 counter name n'"
        ),
    );
    let namespace = pair.namespace(0);
    super::super::common::sh(&format!(
        "ip netns exec {namespace} ping -q -c 10 -i 0.1 -W 1 {inside} >/dev/null 2>&1 || true"
    ));
    pair.on(1, "nft delete table ip s");
    let spoilt = snapshot(&mut probes);
    let grew = spoilt.since(&after, refused, ours);
    let sent = pair.counted(1, "in4") - messages_now;
    println!("{grew} of {sent} did not decrypt");
    assert_eq!(grew, sent);
    assert!(grew >= 10, "{grew}");
}
