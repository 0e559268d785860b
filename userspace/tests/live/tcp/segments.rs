//! Segments: round-trip time, retransmissions.

use std::{
    io::{Read as _, Write as _},
    thread,
    time::Duration,
};

use kldtrace::{
    kernel::{btf::Btf, loader::VMLINUX_BTF},
    quantile::Summary,
};

use super::{drain, grew_for, pair, send, timed};
use crate::{
    common::{Probes, assert_close, gained, grew, skipped, wait_for},
    net::{self, Family, Info, Lab},
    unseen::unless_hidden,
};

const SRTT: &str = "kldtrace_tcp_srtt_seconds";
const RETRANSMITTED: &str = "kldtrace_tcp_retransmitted_segments";

/// Ping-pong on a line of 2 x 25 ms: after each round `TCP_INFO` tells the
/// smoothed time, which the next received segment observes.
#[test]
fn srtt() {
    const DELAY: f64 = 0.025;
    let Some(mut probes) = Probes::attach(&["tcp.srtt"]) else {
        return;
    };
    let lab = Lab::delayed(Duration::from_secs_f64(DELAY));
    for family in Family::BOTH {
        let listener = lab.server.listen(family);
        let ((mut client, mut server), handshake) = timed(|| pair(&lab, &listener, family));
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut byte = [0];
                while server.read(&mut byte).unwrap() > 0 {
                    server.write_all(&byte).unwrap();
                }
            });
            let before = probes.snapshot();
            let mut info = Info::of(&client);
            let first = info.segments_in();
            // What the observations must add up to, at least and at most, in
            // microseconds: TCP_INFO cuts off fractions.
            let (mut low, mut high) = (0, 0);
            let mut rounds = Vec::new();
            for _ in 0..20 {
                let ((), took) = timed(|| {
                    let mut byte = [1];
                    client.write_all(&byte).unwrap();
                    client.read_exact(&mut byte).unwrap();
                });
                let now = Info::of(&client);
                // One segment, if the server's answer carries its
                // acknowledgement; if it was late, two.
                let segments = now.segments_in() - info.segments_in();
                let (old, new) = (info.srtt(), now.srtt());
                low += old + (segments - 1) * old.min(new);
                high += old + 1 + (segments - 1) * (old.max(new) + 1);
                rounds.push((took.as_secs_f64(), f64::from(old) / 1e6));
                info = now;
            }
            let after = probes.snapshot();
            let srtt = gained(&before, &after, SRTT, &lab.client.labels(family));
            assert_eq!(srtt.count(), u64::from(info.segments_in() - first));
            let sum = srtt.sum_ns / 1000;
            println!("{family:?}: sum {sum} us, TCP_INFO {low}..={high} us");
            assert!(
                (low.into()..=high.into()).contains(&sum),
                "{low} {sum} {high}"
            );
            // No sample can beat the line, and none, the handshake's
            // included, is longer than this clock's longest.
            let longest = rounds
                .iter()
                .map(|round| round.0)
                .fold(handshake.as_secs_f64(), f64::max);
            let mean = srtt.sum_seconds() / srtt.count() as f64;
            assert!(2.0 * DELAY <= mean && mean <= longest, "{mean} {longest}");
            let mut smoothed: Vec<_> = rounds.iter().map(|round| round.1).collect();
            smoothed.sort_by(f64::total_cmp);
            // A median of twenty is between the tenth and the eleventh.
            let slack = smoothed[10] - smoothed[9];
            assert_close(Summary::of(&srtt).p50, smoothed[9], slack);
            // The other side measured the same line.
            let other = gained(&before, &after, SRTT, &lab.server.labels(family));
            assert!(other.count() >= 20, "{}", other.count());
            assert!(other.sum_seconds() / other.count() as f64 >= 2.0 * DELAY);
            drop(client);
        });
    }
}

/// At least 1,000 segments are dropped on their way, in buffers of many
/// segments each; what we count is `RetransSegs` to the last one.
#[test]
fn retransmitted_segments() {
    unless_hidden(|| {
        let Some(mut probes) = Probes::attach(&["tcp.retransmitted_segments"]) else {
            return;
        };
        let lab = Lab::veth();
        for family in Family::BOTH {
            let listener = lab.server.listen(family);
            let (client, server) = pair(&lab, &listener, family);
            // Large buffers only: each is many segments, dropped in one piece.
            lab.server.nft(
                "table inet t {
                chain c {
                    type filter hook input priority 0
                    meta length > 10000 numgen inc mod 20 == 7 counter name lost drop
                }
                counter lost { }
            }",
            );
            let before = probes.snapshot();
            let already = lab.client.snmp("RetransSegs");
            let info = thread::scope(|scope| {
                let drained = scope.spawn(|| drain(&server));
                for _ in 0..400 {
                    send(&client, 1 << 20);
                    if Info::of(&client).retransmitted() >= 1200 {
                        break;
                    }
                }
                // All must have arrived before the numbers stand still; nothing is
                // unacknowledged, too, while the rest waits to be sent.
                client.shutdown(std::net::Shutdown::Write).unwrap();
                drained.join().unwrap();
                scope
                    .spawn(|| wait_for("the rest", || Info::of(&client).unacknowledged() == 0))
                    .join()
                    .unwrap();
                Info::of(&client)
            });
            let after = probes.snapshot();
            let counted = lab.client.snmp("RetransSegs") - already;
            let dropped = lab.server.nft_packets("lost");
            println!("{family:?}: {counted} segments sent again, {dropped} buffers dropped");
            assert!(counted >= 1000, "{counted}");
            // Segments, not calls: far fewer buffers were lost.
            assert!(dropped * 2 < counted, "{dropped} {counted}");
            assert_eq!(info.retransmitted(), counted);
            let [unit, interface, label] = lab.client.labels(family);
            let data = [unit, interface, label, ("kind", "data")];
            assert_eq!(grew(&before, &after, RETRANSMITTED, &data), counted);
            assert_eq!(
                grew_for(&before, &after, RETRANSMITTED, &lab.client),
                counted
            );
            assert_eq!(lab.server.snmp("RetransSegs"), 0);
            assert_eq!(grew_for(&before, &after, RETRANSMITTED, &lab.server), 0);
        }
    });
}

/// The client's first acknowledgement is dropped, so the server says SYN-ACK
/// again. The listener has no route, so there is no interface.
#[test]
fn retransmitted_synacks() {
    unless_hidden(|| {
        let Some(mut probes) = Probes::attach(&["tcp.retransmitted_segments"]) else {
            return;
        };
        let lab = Lab::veth();
        lab.server.nft(
            "table inet t {
            chain c {
                type filter hook input priority 0
                meta nfproto ipv4 tcp flags == ack numgen inc mod 2 == 0 drop
                meta nfproto ipv6 tcp flags == ack numgen inc mod 2 == 0 drop
            }
        }",
        );
        let listeners = Family::BOTH.map(|family| lab.server.listen(family));
        let before = probes.snapshot();
        let clients = Family::BOTH.map(|family| lab.client.connect(family));
        for listener in &listeners {
            listener.accept().unwrap();
        }
        let after = probes.snapshot();
        for family in Family::BOTH {
            let [unit, interface, label] = lab.server.labels_on("", family);
            let synack = [unit, interface, label, ("kind", "synack")];
            assert_eq!(grew(&before, &after, RETRANSMITTED, &synack), 1);
        }
        assert_eq!(lab.server.snmp("RetransSegs"), 2);
        assert_eq!(grew_for(&before, &after, RETRANSMITTED, &lab.server), 2);
        // The client has nothing to say again.
        assert_eq!(lab.client.snmp("RetransSegs"), 0);
        assert_eq!(grew_for(&before, &after, RETRANSMITTED, &lab.client), 0);
        drop(clients);
    });
}

/// The host's own firewall drops what is sent again: since Linux 6.16 the
/// tracepoint tells of these too, and `RetransSegs` always has.
#[test]
fn retransmitted_segments_that_do_not_get_out() {
    unless_hidden(|| {
        let Some(mut probes) = Probes::attach(&["tcp.retransmitted_segments"]) else {
            return;
        };
        let btf = Btf::from_file(VMLINUX_BTF.as_ref()).unwrap();
        if btf.tracepoint_arguments("tcp_retransmit_skb").unwrap() < 3 {
            return skipped("needs tcp_retransmit_skb with an error (Linux 6.16)");
        }
        let lab = Lab::veth();
        lab.client.nft(
            "table inet t {
            chain c {
                type filter hook output priority 0
                tcp dport 7000 drop
            }
        }",
        );
        let before = probes.snapshot();
        let sockets = Family::BOTH.map(|family| {
            let socket = lab.client.socket(family);
            socket.set_nonblocking(true).unwrap();
            let _ = net::connect(&socket, family.server());
            socket
        });
        // Each of them: one may try again twice before the other does once.
        wait_for("a SYN again on each", || {
            sockets
                .iter()
                .all(|socket| Info::of(socket).retransmitted() >= 1)
        });
        drop(sockets);
        let after = probes.snapshot();
        for family in Family::BOTH {
            let [unit, interface, label] = lab.client.labels(family);
            let syn = [unit, interface, label, ("kind", "syn")];
            assert!(
                grew(&before, &after, RETRANSMITTED, &syn) >= 1,
                "{syn:?} of {:?}",
                after.series(RETRANSMITTED, &[]).collect::<Vec<_>>()
            );
        }
        let counted = lab.client.snmp("RetransSegs");
        assert_eq!(
            grew_for(&before, &after, RETRANSMITTED, &lab.client),
            counted
        );
    });
}
