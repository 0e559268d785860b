//! Faults of TCP.

use std::{
    io::{self, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use super::chain::Chain;
use crate::{
    common::free_port,
    end::End,
    net::{Family, Lab},
};

/// So many connects to a port on which nobody listens.
pub fn refused(connects: usize) {
    let closed = free_port();
    for _ in 0..connects {
        TcpStream::connect(("127.0.0.1", closed)).unwrap_err();
    }
}

impl Chain {
    /// Connects to a port on which nobody listens. A counter needs two samples.
    pub fn refused_connects(&mut self) {
        refused(1);
        let counter = "kldtrace_tcp_connect_failures_total{reason=\"refused\"} > 0";
        self.prometheus.wait_for_news(counter);
        let begun = Instant::now();
        refused(1000);
        self.pages(
            begun,
            "1,000 connects to a closed port",
            "TcpConnectsFailing",
            &["#network"],
            "on n-1 cannot connect: refused",
        );
        self.undone("TcpConnectsFailing");
    }

    /// A server that accepts nobody, with a queue of one.
    pub fn full_accept_queue(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: listen(2) on our own socket.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_secs(2));
        let begun = Instant::now();
        thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(connect);
            }
            self.pages(
                begun,
                "a server accepts nobody",
                "TcpListenOverflow",
                &["#platform"],
                "A server on n-1 does not accept its connections in time",
            );
        });
        self.undone("TcpListenOverflow");
    }

    /// A link that loses some of what is sent over it.
    pub fn lossy_link(&mut self) {
        let lab = Lab::veth();
        let listener = lab.server.listen(Family::V4);
        let client = lab.client.connect(Family::V4);
        let (server, _) = listener.accept().unwrap();
        let sending = AtomicBool::new(true);
        thread::scope(|scope| {
            let _end = End(&sending);
            scope.spawn(|| io::copy(&mut &server, &mut io::sink()));
            let client = &client;
            let sending = &sending;
            scope.spawn(move || {
                let block = vec![0; 1 << 16];
                while sending.load(SeqCst) {
                    let mut client = client;
                    client.write_all(&block).unwrap();
                }
                client.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let begun = Instant::now();
            // Large buffers only: each is many segments.
            lab.server.nft(
                "table inet t {
                    chain c {
                        type filter hook input priority 0
                        meta length > 10000 numgen inc mod 20 == 7 drop
                    }
                }",
            );
            self.pages(
                begun,
                "a link loses one large packet in twenty",
                "TcpRetransmitsHigh",
                &["#network"],
                &format!("n-1 loses packets on {}", lab.client.interface),
            );
        });
        self.undone("TcpRetransmitsHigh");
    }
}
