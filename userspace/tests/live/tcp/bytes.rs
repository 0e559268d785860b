//! Bytes that connections carried.

use std::{
    net::{Shutdown, TcpListener},
    thread,
};

use super::{drain, grew_for, pair, read_exactly, send, wait_until_closed};
use crate::{
    common::{Probes, grew, wait_for},
    net::{self, Family, Info, Lab},
};

const SENT: &str = "kldtrace_tcp_sent_bytes";
const RECEIVED: &str = "kldtrace_tcp_received_bytes";

/// How a connection may end.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The client says that it has no more, and reads the server's end.
    Shutdown,
    /// The client closes at once: its socket is an orphan.
    Close,
    /// The server closes first.
    Server,
    /// The client resets the connection.
    Reset,
}

/// Bytes as this test sent and received them, whatever the end, and with
/// losses on the way.
#[test]
fn bytes() {
    let Some(mut probes) = Probes::attach(&["tcp.sent_bytes", "tcp.received_bytes"]) else {
        return;
    };
    let lab = Lab::veth();
    let lossy = "table inet t {
        chain c {
            type filter hook input priority 0
            meta length > 1000 numgen random mod 50 == 0 drop
        }
    }";
    lab.server.nft(lossy);
    lab.client.nft(lossy);
    for family in Family::BOTH {
        let listener = lab.server.listen(family);
        for end in [End::Shutdown, End::Close, End::Server, End::Reset] {
            for (up, down) in [(0, 0), (1, 0), (3_000_001, 70_003), (5, 2_000_000)] {
                let before = probes.snapshot();
                let sent_once = exchange(&lab, &listener, family, end, up, down);
                let after = probes.snapshot();
                let (up, down) = (up as u64, down as u64);
                for (host, sent, received) in [(&lab.client, up, down), (&lab.server, down, up)] {
                    let labels = host.labels(family);
                    let what = format!("{family:?} {end:?} {up} {down} {}", host.unit());
                    assert_eq!(grew(&before, &after, SENT, &labels), sent, "{what}");
                    assert_eq!(grew(&before, &after, RECEIVED, &labels), received, "{what}");
                    assert_eq!(grew_for(&before, &after, SENT, host), sent, "{what}");
                    assert_eq!(
                        grew_for(&before, &after, RECEIVED, host),
                        received,
                        "{what}"
                    );
                }
                assert_eq!(sent_once, up);
            }
        }
    }
    let again = lab.client.snmp("RetransSegs") + lab.server.snmp("RetransSegs");
    println!("{again} segments sent again meanwhile");
    assert!(again > 0);
}

/// One connection with so many bytes up and down; what `TCP_INFO` says of the
/// client's before its end.
fn exchange(
    lab: &Lab,
    listener: &TcpListener,
    family: Family,
    end: End,
    up: usize,
    down: usize,
) -> u64 {
    let (client, server) = pair(lab, listener, family);
    thread::scope(|scope| {
        let reader = scope.spawn(|| read_exactly(&server, up));
        send(&client, up);
        reader.join().unwrap();
        let reader = scope.spawn(|| read_exactly(&client, down));
        send(&server, down);
        reader.join().unwrap();
    });
    // A reset throws away what is not acknowledged.
    for socket in [&client, &server] {
        wait_for("the last bytes", || Info::of(socket).unacknowledged() == 0);
    }
    let info = Info::of(&client);
    assert_eq!(info.bytes_received(), down as u64);
    match end {
        End::Shutdown => {
            client.shutdown(Shutdown::Write).unwrap();
            drain(&server);
            drop(server);
            drain(&client);
        }
        End::Close => {
            drop(client);
            drain(&server);
            drop(server);
        }
        End::Server => {
            drop(server);
            drain(&client);
            drop(client);
        }
        End::Reset => {
            net::reset(client);
            drain(&server);
        }
    }
    wait_until_closed(lab);
    info.bytes_sent_once()
}
