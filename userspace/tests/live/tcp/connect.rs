//! Active connects that succeed.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use kldtrace::quantile::Summary;

use super::{WAKE, grew_for, timed};
use crate::{
    common::{Probes, assert_close, gained, grew},
    net::{self, Family, Lab},
    unseen::unless_hidden,
};

const LATENCY: &str = "kldtrace_tcp_connect_latency_seconds";
const RETRANSMITTED: &str = "kldtrace_tcp_retransmitted_segments";

/// The first SYN of each connect is dropped by the server's firewall, so a
/// connect takes the initial retransmission time-out, one second.
#[test]
fn connect_latency_of_a_lost_syn() {
    unless_hidden(|| {
        let Some(mut probes) =
            Probes::attach(&["tcp.connect_latency", "tcp.retransmitted_segments"])
        else {
            return;
        };
        let lab = Lab::veth();
        let listeners = Family::BOTH.map(|family| lab.server.listen(family));
        lab.server.nft(
            "table inet t {
            chain c {
                type filter hook input priority 0
                meta nfproto ipv4 tcp flags & (syn|ack) == syn numgen inc mod 2 == 0 drop
                meta nfproto ipv6 tcp flags & (syn|ack) == syn numgen inc mod 2 == 0 drop
            }
        }",
        );
        let before = probes.snapshot();
        let took = thread::scope(|scope| {
            Family::BOTH
                .map(|family| {
                    let socket = lab.client.socket(family);
                    scope.spawn(move || timed(|| net::connect(&socket, family.server()).unwrap()).1)
                })
                .map(|thread| thread.join().unwrap())
        });
        let after = probes.snapshot();
        for (family, took) in Family::BOTH.into_iter().zip(took) {
            let labels = lab.client.labels(family);
            let latency = gained(&before, &after, LATENCY, &labels);
            assert_eq!(latency.count(), 1, "{family:?}");
            let (sum, own) = (latency.sum_seconds(), took.as_secs_f64());
            println!("{family:?}: {sum} s, own clock {own} s");
            // The connect ended before this thread knew of it.
            assert!(sum >= 1.0 && sum < own && own - sum < WAKE, "{sum} {own}");
            assert_close(Summary::of(&latency).p50, sum, 0.0);
            for (kind, expected) in [("syn", 1), ("synack", 0), ("data", 0)] {
                let [unit, interface, family] = labels;
                let labels = [unit, interface, family, ("kind", kind)];
                assert_eq!(grew(&before, &after, RETRANSMITTED, &labels), expected);
            }
        }
        assert_eq!(lab.client.snmp("RetransSegs"), 2);
        assert_eq!(grew_for(&before, &after, RETRANSMITTED, &lab.server), 0);
        // Passive connections have no connect latency.
        let unit = [("unit", lab.server.unit())];
        assert_eq!(gained(&before, &after, LATENCY, &unit).count(), 0);
        drop(listeners);
    });
}

/// A line that holds each packet for 20 ms: no connect is faster than 40 ms,
/// and the quantiles are those of this test's own clock.
#[test]
fn connect_latency_of_a_long_line() {
    const CONNECTS: usize = 15;
    let Some(mut probes) = Probes::attach(&["tcp.connect_latency"]) else {
        return;
    };
    let lab = Lab::delayed(Duration::from_millis(20));
    for family in Family::BOTH {
        let _listener = lab.server.listen(family);
        let before = probes.snapshot();
        let mut took: Vec<f64> = (0..CONNECTS)
            .map(|_| {
                let socket = lab.client.socket(family);
                let connected = timed(|| net::connect(&socket, family.server()).unwrap());
                connected.1.as_secs_f64()
            })
            .collect();
        let after = probes.snapshot();
        took.sort_by(f64::total_cmp);
        let latency = gained(&before, &after, LATENCY, &lab.client.labels(family));
        assert_eq!(latency.count(), CONNECTS as u64);
        let (sum, own): (f64, f64) = (latency.sum_seconds(), took.iter().sum());
        let (p50, own_p50) = (Summary::of(&latency).p50, took[CONNECTS / 2]);
        println!("{family:?}: sum {sum} s of {own} s, p50 {p50} s of {own_p50} s");
        assert!(sum >= 0.040 * CONNECTS as f64 && sum < own, "{sum} {own}");
        // Between established and this thread's look at its clock: being
        // woken, typically 50 us, more while the machine compiles.
        assert_close(p50, own_p50, 0.010);
    }
}

/// A socket that failed and connects anew: the second try's time only.
#[test]
fn connect_latency_after_a_failure() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_latency", "tcp.connect_failures"]) else {
        return;
    };
    let lab = Lab::veth();
    for family in Family::BOTH {
        let before = probes.snapshot();
        let socket = lab.client.socket(family);
        net::connect(&socket, family.server()).unwrap_err();
        thread::sleep(Duration::from_millis(300));
        let _listener = lab.server.listen(family);
        let ((), took) = timed(|| net::connect(&socket, family.server()).unwrap());
        let after = probes.snapshot();
        let labels = lab.client.labels(family);
        let latency = gained(&before, &after, LATENCY, &labels);
        assert_eq!(latency.count(), 1);
        assert!(latency.sum_seconds() < took.as_secs_f64());
        let failures = "kldtrace_tcp_connect_failures";
        assert_eq!(grew(&before, &after, failures, &labels), 1);
    }
}

/// The family is the socket's: an IPv6 socket that speaks IPv4 is `ipv6`, on
/// either side.
#[test]
fn family_of_a_mapped_address() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_latency", "tcp.state_changes"]) else {
        return;
    };
    let lab = Lab::veth();
    let listener = lab
        .server
        .within(|| std::net::TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, net::PORT)))
        .unwrap();
    let before = probes.snapshot();
    let SocketAddr::V4(server) = Family::V4.server() else {
        unreachable!()
    };
    let mapped = SocketAddr::from((server.ip().to_ipv6_mapped(), net::PORT));
    let v4: TcpStream = lab.client.connect(Family::V4);
    let v6 = lab.client.socket(Family::V6);
    net::connect(&v6, mapped).unwrap();
    let accepted = [listener.accept().unwrap(), listener.accept().unwrap()];
    let after = probes.snapshot();
    for family in Family::BOTH {
        let latency = gained(&before, &after, LATENCY, &lab.client.labels(family));
        assert_eq!(latency.count(), 1, "{family:?}");
    }
    let established = |family| {
        let [unit, interface, family] = lab.server.labels(family);
        let labels = [unit, interface, family, ("state", "established")];
        grew(&before, &after, "kldtrace_tcp_state_changes", &labels)
    };
    assert_eq!(established(Family::V4), 0);
    assert_eq!(established(Family::V6), 2);
    drop((v4, v6, accepted));
}
