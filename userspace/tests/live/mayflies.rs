//! Cgroups that live for a tenth of a second, and connections within them.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
};

use crate::{
    load::{Account, Cgroup, Worker, reap, sleep_for, spawn_into},
    net,
};

/// A process that makes as many cgroups as it is told, one after the other.
/// In each, a process sleeps twice and makes `connections` on a loopback of
/// its own, then both are gone. It answers with the context switches that the
/// kernel counted for all of those.
pub fn keeper(connections: u64) -> Worker {
    let mut number = 0;
    let mut listener = None;
    Worker::start(move |count| {
        let listener = listener.get_or_insert_with(lonely_listener);
        let address = listener.local_addr().unwrap();
        let mut switches = 0;
        for _ in 0..count {
            number += 1;
            let cgroup = Cgroup::new(&format!("{}-{number}", std::process::id()));
            let folder = File::open(&cgroup.path).unwrap();
            let child = spawn_into(&folder, 0, || {
                for _ in 0..connections {
                    connect(listener, address);
                }
                sleep_for(50_000);
                sleep_for(50_000);
            });
            let Account {
                voluntary,
                preempted,
                ..
            } = reap(child);
            switches += voluntary + preempted;
        }
        switches
    })
}

/// Listens in a network namespace of this process alone: nobody else's
/// connections, no port that could run out.
fn lonely_listener() -> TcpListener {
    // SAFETY: system calls on numbers and structs of ours; zeros are valid.
    unsafe {
        assert_eq!(libc::unshare(libc::CLONE_NEWNET), 0, "unshare");
        let socket = libc::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, byte) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
            *to = libc::c_char::from_ne_bytes([*byte]);
        }
        request.ifr_ifru.ifru_flags = libc::IFF_UP as i16;
        assert_eq!(
            libc::ioctl(socket, libc::SIOCSIFFLAGS, &raw const request),
            0,
            "lo up"
        );
        libc::close(socket);
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
}

/// Connects, accepts and closes both ends with a reset: no TIME_WAIT.
fn connect(listener: &TcpListener, address: SocketAddr) {
    let client = TcpStream::connect(address).unwrap();
    let (server, _) = listener.accept().unwrap();
    net::reset(client);
    drop(server);
}
