//! The time that connections wait to be accepted, and what is not seen of it.

use std::{
    io::Read as _,
    net::{TcpListener, TcpStream},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr, thread,
    time::{Duration, Instant},
};

use kldtrace::kernel::loader::Options;

use super::{WAKE, drain, send};
use crate::{
    common::{Probes, Snapshot, assert_close, gained, grew, wait_for},
    net::{self, Family, Lab, PORT},
};

const LATENCY: &str = "kldtrace_tcp_accept_latency_seconds";
const SIGNALS: [&str; 2] = ["tcp.accept_latency", "self.losses"];

/// Runs a test with each way to see an accept that this kernel takes: the
/// return of `inet_csk_accept`, which sees all (then the second argument is
/// true), and the cgroup hook, which every kernel takes.
fn each_way(test: impl Fn(&mut Probes, bool)) {
    for avoid in [vec![], vec!["fexit"]] {
        let options = Options {
            avoid,
            ..Options::default()
        };
        let Some(mut probes) = Probes::attach_with(&SIGNALS, &options) else {
            return;
        };
        let loaded = probes.0.loaded();
        let mut hooks = loaded.iter().flat_map(|loaded| &loaded.attached);
        let exact = hooks.any(|one| one.hook.attach.kind() == "fexit");
        println!("every accept is seen: {exact}");
        test(&mut probes, exact);
        if !exact {
            return;
        }
    }
}

fn lost(before: &Snapshot, after: &Snapshot) -> u64 {
    grew(
        before,
        after,
        "kldtrace_losses",
        &[("reason", "tcp_accept")],
    )
}

/// accept4(fd, NULL, NULL, 0).
fn accept_without_address(listener: &TcpListener) -> TcpStream {
    // SAFETY: an open socket; no address is asked for. The result is checked,
    // and nobody else owns it.
    unsafe {
        let fd = libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), 0);
        assert!(fd >= 0);
        TcpStream::from(OwnedFd::from_raw_fd(fd))
    }
}

/// accept(fd, &address, &length): the older call.
fn accept_by_the_old_call(listener: &TcpListener) -> TcpStream {
    let mut address = [0_u8; size_of::<libc::sockaddr_in6>()];
    let mut length = address.len() as u32;
    // SAFETY: an open socket, a buffer and its length. As above.
    unsafe {
        let fd = libc::syscall(
            libc::SYS_accept,
            listener.as_raw_fd(),
            address.as_mut_ptr(),
            &raw mut length,
        );
        assert!(fd >= 0);
        TcpStream::from(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// A way to accept.
type Accept = fn(&TcpListener) -> TcpStream;

/// A server that comes late for each connection, by two system calls.
#[test]
fn accept_latency() {
    each_way(|probes, _| {
        let lab = Lab::veth();
        let calls: [Accept; 2] = [
            |listener| listener.accept().unwrap().0,
            accept_by_the_old_call,
        ];
        for family in Family::BOTH {
            for accept in calls {
                let listener = lab.server.listen(family);
                let before = probes.snapshot();
                // This socket is made before the clock starts.
                let client = lab.client.socket(family);
                let started = Instant::now();
                net::connect(&client, family.server()).unwrap();
                let connected = Instant::now();
                thread::sleep(Duration::from_millis(400));
                let late = connected.elapsed().as_secs_f64();
                let server = accept(&listener);
                let most = started.elapsed().as_secs_f64();
                let after = probes.snapshot();
                let latency = gained(&before, &after, LATENCY, &lab.server.labels(family));
                assert_eq!(latency.count(), 1);
                let sum = latency.sum_seconds();
                println!("{family:?}: {late} s, {sum} s, at most {most} s");
                assert!(sum <= most, "{sum} {most}");
                // The last packet of the handshake may reach the server a little
                // after connect() has returned, on the other CPU.
                assert_close(sum, late, 0.005);
                let p50 = kldtrace::quantile::Summary::of(&latency).p50;
                assert_close(p50, sum, 0.0);
                assert_eq!(lost(&before, &after), 0);
                // Nothing more comes of it later.
                drop((client, server));
                let end = probes.snapshot();
                let unit = [("unit", lab.server.unit())];
                assert_eq!(gained(&after, &end, LATENCY, &unit).count(), 0);
                assert_eq!(lost(&after, &end), 0);
            }
        }
    });
}

/// A server that waits in accept(): the connection does not wait.
#[test]
fn accept_latency_of_a_server_that_waits() {
    const CONNECTIONS: u64 = 20;
    each_way(|probes, _| {
        let lab = Lab::veth();
        for family in Family::BOTH {
            let listener = lab.server.listen(family);
            let before = probes.snapshot();
            thread::scope(|scope| {
                scope.spawn(|| {
                    for _ in 0..CONNECTIONS {
                        let (mut server, _) = listener.accept().unwrap();
                        let _ = server.read(&mut [0]);
                    }
                });
                for _ in 0..CONNECTIONS {
                    let client = lab.client.connect(family);
                    thread::sleep(Duration::from_millis(5));
                    drop(client);
                }
            });
            let after = probes.snapshot();
            let latency = gained(&before, &after, LATENCY, &lab.server.labels(family));
            assert_eq!(latency.count(), CONNECTIONS);
            let mean = latency.sum_seconds() / CONNECTIONS as f64;
            println!("{family:?}: {mean} s");
            assert!(mean < WAKE, "{mean}");
            assert_eq!(lost(&before, &after), 0);
        }
    });
}

/// Who accepts without an address is not seen by the hook of addresses: each
/// is counted as lost, once, and asking for the peer's address later is not
/// taken for an accept. The return of the kernel's own function misses none.
#[test]
fn accept_without_an_address_is_seen_or_counted() {
    each_way(|probes, exact| {
        let lab = Lab::veth();
        for family in Family::BOTH {
            let listener = lab.server.listen(family);
            let before = probes.snapshot();
            let mut ends = Vec::new();
            for _ in 0..25 {
                let client = lab.client.connect(family);
                let server = accept_without_address(&listener);
                // getpeername()
                assert_eq!(server.peer_addr().unwrap().ip(), family.host(1));
                ends.push((client, server));
            }
            let meanwhile = probes.snapshot();
            assert_eq!(lost(&before, &meanwhile), 0);
            let again = accept_and_look_again(&lab, &listener, family);
            drop(again);
            ends.clear();
            wait_for("all to close", || lab.server.living() == 0);
            let after = probes.snapshot();
            let unit = [("unit", lab.server.unit())];
            // By the other way only the one that was accepted with an address.
            let (seen, losses) = if exact { (26, 0) } else { (1, 25) };
            assert_eq!(gained(&before, &after, LATENCY, &unit).count(), seen);
            assert_eq!(lost(&before, &after), losses);
        }
    });
}

/// Accepted as it should be; whoever asks for the address again changes
/// nothing.
fn accept_and_look_again(
    lab: &Lab,
    listener: &TcpListener,
    family: Family,
) -> (TcpStream, TcpStream) {
    let (client, server) = super::pair(lab, listener, family);
    for socket in [&client, &server] {
        socket.peer_addr().unwrap();
    }
    (client, server)
}

/// Connections that end in the queue: by the client's reset, or as the
/// listener goes. Nobody accepted them: no latency, and no loss.
#[test]
fn connections_that_die_in_the_queue() {
    each_way(|probes, _| {
        let lab = Lab::veth();
        for family in Family::BOTH {
            let listener = lab.server.listen(family);
            let before = probes.snapshot();
            for _ in 0..5 {
                net::reset(lab.client.connect(family));
            }
            wait_for("the resets", || lab.server.snmp("CurrEstab") == 0);
            let clients = [(); 5].map(|()| lab.client.connect(family));
            wait_for("the queue", || lab.server.snmp("CurrEstab") == 5);
            drop(listener);
            for client in clients {
                drain(&client);
            }
            wait_for("all to close", || lab.server.living() == 0);
            let after = probes.snapshot();
            let unit = [("unit", lab.server.unit())];
            assert_eq!(gained(&before, &after, LATENCY, &unit).count(), 0);
            assert_eq!(lost(&before, &after), 0);
        }
    });
}

/// The client has sent all and closed before the server comes: the wait goes
/// on to the accept.
#[test]
fn connections_that_are_finished_before_they_are_accepted() {
    each_way(|probes, _| {
        let lab = Lab::veth();
        for family in Family::BOTH {
            let listener = lab.server.listen(family);
            let before = probes.snapshot();
            let client = lab.client.connect(family);
            send(&client, 3);
            drop(client);
            thread::sleep(Duration::from_millis(200));
            let (server, _) = listener.accept().unwrap();
            assert_eq!(drain(&server), 3);
            drop(server);
            let after = probes.snapshot();
            let latency = gained(&before, &after, LATENCY, &lab.server.labels(family));
            assert_eq!(latency.count(), 1);
            assert!(latency.sum_seconds() > 0.19, "{latency:?}");
            assert_eq!(lost(&before, &after), 0);
        }
    });
}

/// A listener of both families gives IPv4 connections IPv6 sockets: they are
/// seen by the other hook.
#[test]
fn accept_latency_of_mapped_addresses() {
    each_way(|probes, _| {
        let lab = Lab::veth();
        let any = std::net::Ipv6Addr::UNSPECIFIED;
        let listener = lab
            .server
            .within(|| TcpListener::bind((any, PORT)))
            .unwrap();
        let before = probes.snapshot();
        let client = lab.client.connect(Family::V4);
        drop(listener.accept().unwrap());
        let after = probes.snapshot();
        let latency = gained(&before, &after, LATENCY, &lab.server.labels(Family::V6));
        assert_eq!(latency.count(), 1);
        assert_eq!(lost(&before, &after), 0);
        drop(client);
    });
}
