//! A node with planes, and packets that cross from one to another.

use std::{
    fs, io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Instant,
};

use serde_json::Value;

use super::{chain::Chain, hostile::NODE};
use crate::{
    beside::{ADDRESS, Daemon, said},
    common::get,
    pair::{Pair, sh},
};

/// More than a stray packet.
const PACKETS: usize = 100;

/// In a namespace, with a peer on its interface that also has an address of
/// another plane.
pub struct Planes {
    /// A way to the daemon, from outside of its namespace.
    pub port: u16,
    daemon: Daemon,
    pair: Pair,
    folder: tempfile::TempDir,
}

impl Planes {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = Pair::new("paging");
        let address = format!("ip -n {} addr add 10.98.0.2/24 dev peer", pair.peer);
        assert!(sh(&address));
        let signals = "[signals]\nenable = [\"planes.*\"]";
        let daemon = Daemon::start(&pair, folder.path(), signals);
        let planes = Self {
            port: door(pair.node.clone()),
            daemon,
            pair,
            folder,
        };
        planes.apply("front");
        planes.daemon.wait_for("the planes", |_| {
            let (_, metrics) = get(planes.port, "/metrics", "");
            let metrics = String::from_utf8_lossy(&metrics).into_owned();
            metrics.contains("kldtrace_plane_enforcing{plane=\"front\"} 1")
        });
        planes
    }

    /// Applies a policy in which the plane of the interface has this name.
    pub fn apply(&self, name: &str) {
        let policy = format!(
            "[[plane]]\nname = {}\ninterfaces = [\"node\"]\nprefixes = [\"10.99.0.0/24\"]\n\
             mode = \"enforce\"\n\
             [[plane]]\nname = \"back\"\ninterfaces = [\"nowhere0\"]\nprefixes = [\"10.98.0.0/24\"]\n",
            // A string of JSON is one of TOML.
            Value::from(name)
        );
        let file = self.folder.path().join("planes.toml");
        fs::write(&file, policy).unwrap();
        let file = file.to_str().unwrap();
        let applied = self.daemon.run(&["planes", "apply", file]);
        assert!(applied.status.success(), "{}", said(&applied));
    }

    /// Sends packets from the other plane.
    pub fn cross(&self) {
        let from = SocketAddr::from(([10, 98, 0, 2], 4001));
        let socket = Pair::within(&self.pair.peer, || UdpSocket::bind(from).unwrap());
        for _ in 0..PACKETS {
            socket.send_to(&[7; 72], ("10.99.0.1", 7001)).unwrap();
        }
    }
}

/// Listens here, and carries what comes into a namespace and back.
fn door(namespace: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test program.
    thread::spawn(move || {
        for outside in listener.incoming().flatten() {
            let inside = Pair::within(&namespace, || TcpStream::connect(ADDRESS));
            let Ok(inside) = inside else { continue };
            let back = (inside.try_clone().unwrap(), outside.try_clone().unwrap());
            for (mut from, mut to) in [(outside, inside), back] {
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    port
}

impl Chain {
    /// Packets of a plane that come in on another, which no rule allows.
    pub fn plane_crossing(&mut self) {
        let counter = "kldtrace_plane_packets_total{plane=\"front\",reason=\"cross\"}";
        self.prometheus.wait_for_news(counter);
        let begun = Instant::now();
        self.planes.cross();
        self.pages(
            begun,
            "100 packets of one plane come in on another",
            "PlaneCrossing",
            &["page-network", "#network"],
            &format!("Somebody tries to cross from or to the plane front on {NODE}"),
        );
        self.undone("PlaneCrossing");
    }
}
