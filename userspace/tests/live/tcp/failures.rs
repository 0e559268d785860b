//! Active connects that fail, by reason.

use std::{io, net::SocketAddr, thread, time::Duration};

use super::grew_for;
use crate::{
    common::{Probes, Snapshot, grew, wait_for},
    net::{self, Family, Host, Lab, PORT},
    unseen::unless_hidden,
};

const FAILURES: &str = "kldtrace_tcp_connect_failures";
const REASONS: [&str; 5] = ["refused", "timeout", "unreachable", "aborted", "other"];

/// Asserts that so many connects failed for one reason, and no others.
#[track_caller]
fn assert_only(
    before: &Snapshot,
    after: &Snapshot,
    host: &Host,
    family: Family,
    reason: &str,
    count: u64,
) {
    let [unit, interface, label] = host.labels(family);
    for one in REASONS {
        let labels = [unit, interface, label, ("reason", one)];
        let expected = if one == reason { count } else { 0 };
        let failed = grew(before, after, FAILURES, &labels);
        assert_eq!(failed, expected, "{family:?}: {one}");
    }
    // Nor under another interface or family.
    assert_eq!(grew_for(before, after, FAILURES, host), count, "{family:?}");
}

/// Connects, which must fail with an error number, or with any of several.
#[track_caller]
fn fails(host: &Host, family: Family, to: SocketAddr, with: i32) {
    let error = net::connect(&host.socket(family), to).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(with), "{to}: {error}");
}

#[test]
fn connect_failures_refused() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_failures"]) else {
        return;
    };
    let lab = Lab::veth();
    for family in Family::BOTH {
        let before = probes.snapshot();
        let failed = lab.client.snmp("AttemptFails");
        for _ in 0..7 {
            fails(&lab.client, family, family.server(), libc::ECONNREFUSED);
        }
        let after = probes.snapshot();
        assert_only(&before, &after, &lab.client, family, "refused", 7);
        assert_eq!(lab.client.snmp("AttemptFails") - failed, 7);
        assert_eq!(grew_for(&before, &after, FAILURES, &lab.server), 0);
    }
}

/// A firewall that swallows SYNs; one retry, and `TCP_USER_TIMEOUT`.
#[test]
fn connect_failures_timeout() {
    unless_hidden(|| {
        let Some(mut probes) = Probes::attach(&["tcp.connect_failures"]) else {
            return;
        };
        let lab = Lab::veth();
        // Without the linear ones the second wait would be two seconds, not one.
        lab.client.sysctl("net/ipv4/tcp_syn_retries", "1");
        lab.server.nft(
            "table inet t {
            chain c {
                type filter hook input priority 0
                tcp dport 7000 drop
            }
        }",
        );
        let before = probes.snapshot();
        thread::scope(|scope| {
            for family in Family::BOTH {
                for patience_ms in [0_u32, 500] {
                    let socket = lab.client.socket(family);
                    net::set_option(
                        &socket,
                        libc::IPPROTO_TCP,
                        libc::TCP_USER_TIMEOUT,
                        &patience_ms,
                    );
                    scope.spawn(move || {
                        let error = net::connect(&socket, family.server()).unwrap_err();
                        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
                    });
                }
            }
        });
        let after = probes.snapshot();
        for family in Family::BOTH {
            let [unit, interface, label] = lab.client.labels(family);
            let labels = [unit, interface, label, ("reason", "timeout")];
            assert_eq!(grew(&before, &after, FAILURES, &labels), 2, "{family:?}");
        }
        assert_eq!(grew_for(&before, &after, FAILURES, &lab.client), 4);
        assert_eq!(lab.client.snmp("AttemptFails"), 4);
    });
}

/// A router says that there is no way, that nobody is there or that nobody may;
/// or this host finds no neighbour.
#[test]
fn connect_failures_unreachable() {
    unless_hidden(|| {
        let Some(mut probes) = Probes::attach(&["tcp.connect_failures"]) else {
            return;
        };
        let lab = Lab::veth();
        lab.server.sysctl("net/ipv4/ip_forward", "1");
        lab.server.sysctl("net/ipv6/conf/all/forwarding", "1");
        for (protocol, family) in [("ipv4", Family::V4), ("ipv6", Family::V6)] {
            let (beyond, server) = (family.beyond(), family.host(2));
            let to = SocketAddr::new(beyond, PORT);
            lab.client.ip(&format!("route add {beyond} via {server}"));
            let denied = match family {
                Family::V4 => libc::EHOSTUNREACH,
                Family::V6 => libc::EACCES,
            };
            let noway = match family {
                Family::V4 => libc::EHOSTUNREACH,
                Family::V6 => libc::ENETUNREACH,
            };
            for (route, errno) in [("unreachable", noway), ("prohibit", denied)] {
                lab.server.ip(&format!("route add {route} {beyond}"));
                let before = probes.snapshot();
                let failed = lab.client.snmp("AttemptFails");
                for _ in 0..2 {
                    fails(&lab.client, family, to, errno);
                }
                let after = probes.snapshot();
                assert_only(&before, &after, &lab.client, family, "unreachable", 2);
                assert_eq!(lab.client.snmp("AttemptFails") - failed, 2);
                lab.server.ip(&format!("route del {route} {beyond}"));
            }

            // Ask for the neighbour that is not there in vain once, not 3 s long. Not
            // before the router was asked, which may be slow to answer.
            let neighbour = format!("net/{protocol}/neigh/{}", lab.client.interface);
            lab.client
                .sysctl(&format!("{neighbour}/mcast_solicit"), "1");
            lab.client
                .sysctl(&format!("{neighbour}/retrans_time_ms"), "100");
            let before = probes.snapshot();
            let nobody = SocketAddr::new(family.host(99), PORT);
            fails(&lab.client, family, nobody, libc::EHOSTUNREACH);
            let after = probes.snapshot();
            assert_only(&before, &after, &lab.client, family, "unreachable", 1);
        }
    });
}

/// Without any route connect() fails before there is a SYN: no attempt, no
/// failure, as `ActiveOpens` and `AttemptFails` have it.
#[test]
fn connect_without_a_route_is_no_attempt() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_failures", "tcp.state_changes"]) else {
        return;
    };
    let lab = Lab::veth();
    let before = probes.snapshot();
    for family in Family::BOTH {
        let to = SocketAddr::new(family.beyond(), PORT);
        fails(&lab.client, family, to, libc::ENETUNREACH);
    }
    let after = probes.snapshot();
    assert_eq!(lab.client.snmp("ActiveOpens"), 0);
    assert_eq!(lab.client.snmp("AttemptFails"), 0);
    assert_eq!(grew_for(&before, &after, FAILURES, &lab.client), 0);
    let changes = "kldtrace_tcp_state_changes";
    assert_eq!(grew_for(&before, &after, changes, &lab.client), 0);
}

/// The caller gives up: by close, and by connecting to nowhere.
#[test]
fn connect_failures_aborted() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_failures"]) else {
        return;
    };
    let lab = Lab::veth();
    lab.server.nft(
        "table inet t {
            chain c {
                type filter hook input priority 0
                tcp dport 7000 drop
            }
        }",
    );
    for family in Family::BOTH {
        let before = probes.snapshot();
        let [closed, disconnected] = [(), ()].map(|()| {
            let socket = lab.client.socket(family);
            socket.set_nonblocking(true).unwrap();
            let error = net::connect(&socket, family.server()).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
            socket
        });
        drop(closed);
        net::disconnect(&disconnected);
        let after = probes.snapshot();
        assert_only(&before, &after, &lab.client, family, "aborted", 2);
    }
    // The kernel does not count these as failed attempts.
    assert_eq!(lab.client.snmp("ActiveOpens"), 4);
    assert_eq!(lab.client.snmp("AttemptFails"), 0);
}

/// An error that is none of these: the peer does not speak TCP.
#[test]
fn connect_failures_other() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_failures"]) else {
        return;
    };
    let lab = Lab::veth();
    lab.server.nft(
        "table inet t {
            chain c {
                type filter hook input priority 0
                ip protocol tcp reject with icmp type prot-unreachable
            }
        }",
    );
    let before = probes.snapshot();
    let to = Family::V4.server();
    fails(&lab.client, Family::V4, to, libc::ENOPROTOOPT);
    let after = probes.snapshot();
    assert_only(&before, &after, &lab.client, Family::V4, "other", 1);
}

/// Many at a time, and the socket's error is read late: still one each.
#[test]
fn connect_failures_of_sockets_that_do_not_wait() {
    let Some(mut probes) = Probes::attach(&["tcp.connect_failures"]) else {
        return;
    };
    let lab = Lab::veth();
    let before = probes.snapshot();
    let sockets: Vec<_> = (0..50)
        .map(|_| {
            let socket = lab.client.socket(Family::V4);
            socket.set_nonblocking(true).unwrap();
            let _ = net::connect(&socket, Family::V4.server());
            socket
        })
        .collect();
    wait_for("50 refusals", || lab.client.snmp("AttemptFails") == 50);
    thread::sleep(Duration::from_millis(10));
    drop(sockets);
    let after = probes.snapshot();
    assert_only(&before, &after, &lab.client, Family::V4, "refused", 50);
}
