//! The life of connections: how long, and through which states.

use std::{net::Shutdown, thread, time::Duration};

use super::{WAKE, drain, grew_for, pair, send, timed, wait_until_closed};
use crate::{
    common::{Probes, Snapshot, gained, grew},
    net::{self, Family, Host, Lab},
};

const LIFETIME: &str = "kldtrace_tcp_connection_lifetime_seconds";
const CHANGES: &str = "kldtrace_tcp_state_changes";
const FAILURES: &str = "kldtrace_tcp_connect_failures";
const LOSSES: &str = "kldtrace_losses";

/// Connections that live for a quarter and for half a second, ended by the
/// client, by the server, and by a reset.
#[test]
fn connection_lifetime() {
    let Some(mut probes) = Probes::attach(&["tcp.connection_lifetime"]) else {
        return;
    };
    let lab = Lab::veth();
    for family in Family::BOTH {
        let listener = lab.server.listen(family);
        let before = probes.snapshot();
        let mut least = 0.0;
        let ((), most) = timed(|| {
            for (millis, how) in [(250, 0), (500, 1), (250, 2)] {
                let (client, server) = pair(&lab, &listener, family);
                let ((), lived) = timed(|| thread::sleep(Duration::from_millis(millis)));
                least += lived.as_secs_f64();
                match how {
                    0 => {
                        client.shutdown(Shutdown::Write).unwrap();
                        drain(&server);
                    }
                    1 => {
                        server.shutdown(Shutdown::Write).unwrap();
                        drain(&client);
                    }
                    _ => {
                        net::reset(client);
                        drain(&server);
                    }
                }
            }
            wait_until_closed(&lab);
        });
        let after = probes.snapshot();
        for host in [&lab.client, &lab.server] {
            let lifetime = gained(&before, &after, LIFETIME, &host.labels(family));
            assert_eq!(lifetime.count(), 3, "{family:?}");
            let sum = lifetime.sum_seconds();
            println!(
                "{family:?}: {least} s <= {sum} s <= {} s",
                most.as_secs_f64()
            );
            assert!(least <= sum && sum <= most.as_secs_f64());
            // One by one: the buckets of a quarter, up to what waking this
            // thread may add, and of half a second.
            let between = |from: f64| {
                let index = |seconds: f64| (seconds.log2() * 8.0).ceil() as i32;
                let range = index(from)..=index(from + WAKE);
                let counts = lifetime.buckets.iter().filter(|b| range.contains(&b.0));
                counts.map(|bucket| bucket.1).sum::<u64>()
            };
            assert_eq!((between(0.25), between(0.5)), (2, 1), "{lifetime:?}");
        }
    }
}

fn change(before: &Snapshot, after: &Snapshot, host: &Host, family: Family, state: &str) -> u64 {
    let labels = [
        ("unit", host.unit()),
        ("family", family.label()),
        ("state", state),
    ];
    grew(before, after, CHANGES, &labels)
}

/// 10,000 short connections of each family: every change is there, against
/// `ActiveOpens` and `PassiveOpens`.
#[test]
fn state_changes() {
    const CONNECTIONS: u64 = 10_000;
    let Some(mut probes) = Probes::attach(&[
        "tcp.state_changes",
        "tcp.connect_latency",
        "tcp.accept_latency",
        "tcp.connection_lifetime",
        "self.losses",
        "self.map_entries",
    ]) else {
        return;
    };
    let lab = Lab::veth();
    for family in Family::BOTH {
        let listener = lab.server.listen(family);
        let (active, passive) = (
            lab.client.snmp("ActiveOpens"),
            lab.server.snmp("PassiveOpens"),
        );
        let before = probes.snapshot();
        // In one go: moving between cgroups 10,000 times is what takes time.
        lab.client.within(|| {
            for _ in 0..CONNECTIONS {
                let client = std::net::TcpStream::connect(family.server()).unwrap();
                let (server, _) = listener.accept().unwrap();
                drop(client);
                drain(&server);
            }
        });
        wait_until_closed(&lab);
        let after = probes.snapshot();
        assert_eq!(lab.client.snmp("ActiveOpens") - active, CONNECTIONS);
        assert_eq!(lab.server.snmp("PassiveOpens") - passive, CONNECTIONS);
        for (host, states) in [
            (
                &lab.client,
                ["syn_sent", "established", "fin_wait1", "fin_wait2", "close"],
            ),
            (
                &lab.server,
                ["syn_recv", "established", "close_wait", "last_ack", "close"],
            ),
        ] {
            for state in states {
                let changes = change(&before, &after, host, family, state);
                assert_eq!(changes, CONNECTIONS, "{family:?}: {state}");
            }
            // And no other state: the kernel's TIME_WAIT is no state of a
            // socket any more, the socket has closed.
            assert_eq!(grew_for(&before, &after, CHANGES, host), 5 * CONNECTIONS);
            let lifetime = gained(&before, &after, LIFETIME, &host.labels(family));
            assert_eq!(lifetime.count(), CONNECTIONS);
        }
        let latency =
            |metric, host: &Host| gained(&before, &after, metric, &host.labels(family)).count();
        let (connect, accept) = (
            "kldtrace_tcp_connect_latency_seconds",
            "kldtrace_tcp_accept_latency_seconds",
        );
        assert_eq!(latency(connect, &lab.client), CONNECTIONS);
        assert_eq!(latency(connect, &lab.server), 0);
        assert_eq!(latency(accept, &lab.server), CONNECTIONS);
        assert_eq!(latency(accept, &lab.client), 0);
        for loss in ["tcp_series", "tcp_start", "tcp_accept"] {
            assert_eq!(
                grew(&before, &after, LOSSES, &[("reason", loss)]),
                0,
                "{loss}"
            );
        }
        // Two units, at most three interface names each (none, lo, theirs)
        // and two families: sockets do not add up.
        let entries = after.integer("kldtrace_map_entries", &[("map", "tcp")]);
        assert!(entries < 100, "{entries}");
    }
}

/// Sockets that are older than the probes: a listener, a connection, one in
/// the accept queue, one still connecting. They count where they can and
/// never lead to a latency that began nobody knows when.
#[test]
fn sockets_older_than_the_probes() {
    if !crate::common::root() {
        return;
    }
    let lab = Lab::veth();
    let listeners = Family::BOTH.map(|family| lab.server.listen(family));
    let old: Vec<_> = Family::BOTH
        .into_iter()
        .zip(&listeners)
        .map(|(family, listener)| {
            let connection = pair(&lab, listener, family);
            let queued = lab.client.connect(family);
            let connecting = lab.client.socket(family);
            (family, listener, connection, queued, connecting)
        })
        .collect();
    lab.server.nft(
        "table inet t {
            chain c {
                type filter hook input priority 0
                tcp flags & (syn|ack) == syn drop
            }
        }",
    );
    for (family, .., connecting) in &old {
        connecting.set_nonblocking(true).unwrap();
        let error = net::connect(connecting, family.server()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    }
    let mut probes = Probes::attach(&[
        "tcp.connect_latency",
        "tcp.accept_latency",
        "tcp.srtt",
        "tcp.connection_lifetime",
        "tcp.sent_bytes",
        "tcp.connect_failures",
        "tcp.state_changes",
        "self.losses",
    ])
    .unwrap();
    let before = probes.snapshot();
    lab.server.nft("");
    for (family, listener, (client, server), queued, connecting) in old {
        send(&client, 1000);
        super::read_exactly(&server, 1000);
        let (accepted, _) = listener.accept().unwrap();
        drop((client, queued));
        drain(&server);
        drain(&accepted);
        drop((server, accepted));
        drop(connecting);
        // The listener serves new ones as ever.
        let (client, server) = pair(&lab, listener, family);
        drop(client);
        drain(&server);
    }
    wait_until_closed(&lab);
    let after = probes.snapshot();
    for family in Family::BOTH {
        for (host, metric) in [
            (&lab.client, "kldtrace_tcp_connect_latency_seconds"),
            (&lab.server, "kldtrace_tcp_accept_latency_seconds"),
            (&lab.client, LIFETIME),
            (&lab.server, LIFETIME),
        ] {
            let gained = gained(&before, &after, metric, &host.labels(family));
            assert_eq!(gained.count(), 1, "{metric}");
            assert!(gained.sum_seconds() < 5.0, "{metric}");
        }
        // All four of the client's closed, and three of the server's.
        assert_eq!(change(&before, &after, &lab.client, family, "close"), 4);
        assert_eq!(change(&before, &after, &lab.server, family, "close"), 3);
    }
    assert_eq!(grew_for(&before, &after, FAILURES, &lab.client), 2);
    for loss in ["tcp_start", "tcp_accept"] {
        assert_eq!(
            grew(&before, &after, LOSSES, &[("reason", loss)]),
            0,
            "{loss}"
        );
    }
}
