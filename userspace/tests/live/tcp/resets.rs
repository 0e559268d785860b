//! Resets, sent and received.

use std::{
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use super::{drain, grew_for, pair, send};
use crate::{
    common::{Probes, Snapshot, grew, wait_for},
    net::{self, Family, Host, Lab},
};

const SENT: &str = "kldtrace_tcp_resets_sent";
const RECEIVED: &str = "kldtrace_tcp_resets_received";

/// Asserts resets sent and received of a host on its link; nowhere else.
#[track_caller]
fn assert_resets(
    before: &Snapshot,
    after: &Snapshot,
    host: &Host,
    family: Family,
    [sent, received]: [u64; 2],
) {
    let labels = host.labels(family);
    assert_eq!(grew(before, after, SENT, &labels), sent, "sent");
    assert_eq!(grew(before, after, RECEIVED, &labels), received, "received");
    assert_eq!(grew_for(before, after, SENT, host), sent, "sent");
    assert_eq!(
        grew_for(before, after, RECEIVED, host),
        received,
        "received"
    );
}

/// A port that is closed answers with a reset: no socket, so no unit, but the
/// interface that the SYN came in by.
#[test]
fn resets_of_a_closed_port() {
    let Some(mut probes) = Probes::attach(&["tcp.resets_sent", "tcp.resets_received"]) else {
        return;
    };
    let lab = Lab::veth();
    for family in Family::BOTH {
        let before = probes.snapshot();
        let already = lab.server.snmp("OutRsts");
        for _ in 0..5 {
            let socket = lab.client.socket(family);
            net::connect(&socket, family.server()).unwrap_err();
        }
        let after = probes.snapshot();
        assert_eq!(lab.server.snmp("OutRsts") - already, 5);
        assert_resets(&before, &after, &lab.client, family, [0, 5]);
        assert_resets(&before, &after, &lab.server, family, [0, 0]);
        let nobody = [
            ("unit", ""),
            ("interface", lab.server.interface.as_str()),
            ("family", family.label()),
        ];
        assert_eq!(grew(&before, &after, SENT, &nobody), 5);
    }
}

/// Connections that one side aborts: `SO_LINGER` 0, data left unread, a
/// listener that goes with connections in its queue; and data for a socket
/// that has gone.
#[test]
fn resets_of_connections() {
    let Some(mut probes) = Probes::attach(&["tcp.resets_sent", "tcp.resets_received"]) else {
        return;
    };
    let lab = Lab::veth();
    for family in Family::BOTH {
        let resets = || [&lab.client, &lab.server].map(|host| host.snmp("OutRsts"));
        let established = || [&lab.client, &lab.server].map(|host| host.snmp("EstabResets"));
        let (out, broken) = (resets(), established());
        let before = probes.snapshot();
        let listener = lab.server.listen(family);
        // The client's reset.
        let (client, server) = pair(&lab, &listener, family);
        net::reset(client);
        drain(&server);
        // The server's: it closes on unread data.
        let (client, server) = pair(&lab, &listener, family);
        send(&client, 100);
        assert!(net::readable(server.as_fd(), Duration::from_secs(9)));
        drop(server);
        drain(&client);
        // Again the server's: three wait in the queue and are never accepted.
        let queued = [(), (), ()].map(|()| lab.client.connect(family));
        wait_for("the queue", || lab.server.snmp("CurrEstab") == 3);
        drop(listener);
        for client in &queued {
            drain(client);
        }
        let after = probes.snapshot();
        assert_resets(&before, &after, &lab.client, family, [1, 4]);
        assert_resets(&before, &after, &lab.server, family, [4, 1]);
        let [from_client, from_server] = resets();
        assert_eq!([from_client - out[0], from_server - out[1]], [1, 4]);
        let [at_client, at_server] = established();
        // The kernel counts an established connection that ends by reset at
        // both its ends.
        assert_eq!([at_client - broken[0], at_server - broken[1]], [5, 5]);
    }
}

/// A listener whose queue is full and that is told to say so: the reset is
/// the listener's, by the interface that the segment came in by.
#[test]
fn resets_of_a_full_queue() {
    let Some(mut probes) = Probes::attach(&["tcp.resets_sent", "tcp.resets_received"]) else {
        return;
    };
    let lab = Lab::veth();
    lab.server.sysctl("net/ipv4/tcp_abort_on_overflow", "1");
    for family in Family::BOTH {
        let listener = lab.server.listen(family);
        // SAFETY: an open socket. A backlog of two holds three connections.
        let set = unsafe { libc::listen(listener.as_raw_fd(), 2) };
        assert_eq!(set, 0);
        let before = probes.snapshot();
        let already = lab.server.snmp("OutRsts");
        let queued = [(), ()].map(|()| lab.client.connect(family));
        wait_for("the queue", || lab.server.snmp("CurrEstab") == 2);
        // Two more handshakes must be under way at a time: a full queue takes no
        // SYN at all. The last acknowledgements get through with the data.
        lab.server.nft(
            "table inet t {
                chain c {
                    type filter hook input priority 0
                    tcp flags == ack drop
                }
            }",
        );
        let [third, fourth] = [(), ()].map(|()| lab.client.connect(family));
        lab.server.nft("");
        send(&third, 1);
        send(&fourth, 1);
        drain(&fourth);
        let after = probes.snapshot();
        assert_eq!(lab.server.snmp("OutRsts") - already, 1);
        assert_resets(&before, &after, &lab.server, family, [1, 0]);
        assert_resets(&before, &after, &lab.client, family, [0, 1]);
        drop((queued, third, fourth, listener));
        wait_for("all to close", || lab.server.living() == 0);
    }
}
