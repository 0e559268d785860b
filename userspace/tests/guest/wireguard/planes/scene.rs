//! A node of the platform and who it talks to: each plane is a real WireGuard
//! interface, with real peers in namespaces of their own.

use std::{
    fs::{self, File},
    thread,
};

use nix::sched::{CloneFlags, setns};

use super::super::super::common::sh;

/// A plane of the example: its interface, the UDP port that carries it, and
/// what addresses on it begin with.
pub struct Tunnel {
    pub device: &'static str,
    port: u16,
    pub v4: &'static str,
    pub v6: &'static str,
}

/// The fourth is a partner, by WireGuard in place of IPsec: an interface
/// without Ethernet all the same.
pub const TUNNELS: [Tunnel; 4] = [
    Tunnel::new("wg-mgmt", 51820, "10.250.0.", "fd00:250::"),
    Tunnel::new("wg-storage", 51821, "10.251.0.", "fd00:251::"),
    Tunnel::new("wg-workload", 51822, "10.252.0.", "fd00:252::"),
    Tunnel::new("ipsec0", 51823, "198.51.100.", "2001:db8:100::"),
];

impl Tunnel {
    const fn new(device: &'static str, port: u16, v4: &'static str, v6: &'static str) -> Self {
        Self {
            device,
            port,
            v4,
            v6,
        }
    }
}

/// Who has a tunnel to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Operator,
    /// Another node, on the storage plane.
    Storage,
    /// Another node, on the workload plane.
    Workload,
    /// A pod or a guest on the workload plane.
    Attacker,
    Partner,
}

impl Peer {
    pub const ALL: [Self; 5] = [
        Self::Operator,
        Self::Storage,
        Self::Workload,
        Self::Attacker,
        Self::Partner,
    ];

    pub const fn tunnel(self) -> &'static Tunnel {
        match self {
            Self::Operator => &TUNNELS[0],
            Self::Storage => &TUNNELS[1],
            Self::Workload | Self::Attacker => &TUNNELS[2],
            Self::Partner => &TUNNELS[3],
        }
    }

    /// The last number of its addresses.
    pub const fn host(self) -> u8 {
        match self {
            Self::Attacker => 66,
            _ => 2,
        }
    }

    pub fn space(self) -> String {
        format!("kl{self:?}").to_lowercase()
    }

    /// Its place on the underlay.
    fn under(self) -> u8 {
        16 + 4 * self as u8
    }

    /// The carrier's address on its link.
    pub fn gateway(self) -> String {
        format!("203.0.113.{}", self.under() + 1)
    }
}

pub const NODE: &str = "klnode";
/// Routes between the node's eth0 and those of the others.
pub const CARRIER: &str = "klcarrier";
/// The node's address on the underlay.
pub const UNDER: &str = "203.0.113.1";

/// The example's set of that name.
const NODES: &str = "10.252.0.0/26,fd00:252::/122";

/// The whole. Dropping it removes the namespaces and all in them.
pub struct Scene;

impl Scene {
    pub fn new() -> Self {
        sh("modprobe -a wireguard veth nf_tables nft_counter 2>/dev/null || modprobe wireguard");
        let peers = Peer::ALL.map(Peer::space);
        let spaces = [NODE, CARRIER].into_iter();
        for space in spaces.clone().chain(peers.iter().map(|one| &one[..])) {
            sh(&format!(
                "ip netns add {space} && ip -n {space} link set lo up && \
                 umask 077 && wg genkey > /tmp/{space}.key"
            ));
        }
        let scene = Self;
        for space in [NODE, CARRIER] {
            scene.on(
                space,
                "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
            );
        }
        underlay(NODE, "c0", "203.0.113.2", UNDER);
        for peer in Peer::ALL {
            let (space, under) = (peer.space(), peer.under());
            let own = format!("203.0.113.{}", under + 2);
            underlay(&space, &format!("c{under}"), &peer.gateway(), &own);
        }
        for tunnel in &TUNNELS {
            scene.interface(NODE, tunnel, 1);
        }
        for peer in Peer::ALL {
            scene.peer(peer);
        }
        scene
    }

    #[track_caller]
    #[expect(clippy::unused_self, reason = "there is no namespace without it")]
    pub fn on(&self, space: &str, command: &str) -> String {
        sh(&format!("ip netns exec {space} {command}"))
    }

    fn interface(&self, space: &str, tunnel: &Tunnel, host: u8) {
        let Tunnel {
            device,
            port,
            v4,
            v6,
        } = tunnel;
        for command in [
            format!("ip link add {device} type wireguard"),
            format!("wg set {device} private-key /tmp/{space}.key listen-port {port}"),
            format!("ip addr add {v4}{host}/24 dev {device}"),
            format!("ip addr add {v6}{host:x}/64 dev {device} nodad"),
            format!("ip link set {device} up"),
        ] {
            self.on(space, &command);
        }
    }

    /// Its tunnel, on both sides. What the attacker may send through its own is
    /// limited by planes alone, but for what the nodes' tunnel has: whom a
    /// source is, is WireGuard's to know.
    fn peer(&self, peer: Peer) {
        let (space, tunnel, host) = (peer.space(), peer.tunnel(), peer.host());
        let Tunnel {
            device,
            port,
            v4,
            v6,
        } = tunnel;
        self.interface(&space, tunnel, host);
        let key = |space: &str| sh(&format!("wg pubkey < /tmp/{space}.key"));
        let (node, own) = (key(NODE), key(&space));
        let (node, own, under) = (node.trim(), own.trim(), peer.under() + 2);
        let allowed = match peer {
            Peer::Attacker | Peer::Partner => "0.0.0.0/0,::/0".to_owned(),
            Peer::Workload => NODES.to_owned(),
            _ => format!("{v4}{host}/32,{v6}{host:x}/128"),
        };
        self.on(
            NODE,
            &format!(
                "wg set {device} peer {own} allowed-ips {allowed} \
                 endpoint 203.0.113.{under}:{port}"
            ),
        );
        self.on(
            &space,
            &format!(
                "wg set {device} peer {node} allowed-ips 0.0.0.0/0,::/0 endpoint {UNDER}:{port}"
            ),
        );
        // The other planes are behind the node.
        for other in TUNNELS.iter().filter(|other| other.port != *port) {
            let Tunnel { v4, v6, .. } = other;
            for to in [format!("{v4}0/24"), format!("{v6}/64")] {
                self.on(&space, &format!("ip route add {to} dev {device}"));
            }
        }
    }
}

/// A pair of interfaces, and the way to everybody else over it.
fn underlay(space: &str, there: &str, carrier: &str, own: &str) {
    sh(&format!(
        "ip link add eth0 netns {space} type veth peer name {there} netns {CARRIER} && \
         ip -n {CARRIER} addr add {carrier}/30 dev {there} && \
         ip -n {CARRIER} link set {there} up && \
         ip -n {space} addr add {own}/30 dev eth0 && ip -n {space} link set eth0 up && \
         ip -n {space} route add default via {carrier}"
    ));
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Not through sh, which panics.
        let ip = |arguments: &[&str]| {
            let _ = std::process::Command::new("ip").args(arguments).output();
        };
        let peers = Peer::ALL.map(Peer::space);
        for space in [NODE, CARRIER]
            .into_iter()
            .chain(peers.iter().map(|one| &one[..]))
        {
            // Whoever listens in a namespace keeps it, and all that is in it.
            for tunnel in &TUNNELS {
                ip(&["-n", space, "link", "del", tunnel.device]);
            }
            ip(&["netns", "del", space]);
            let _ = fs::remove_file(format!("/tmp/{space}.key"));
        }
    }
}

/// Runs something in a namespace, in a thread of its own.
pub fn within<T: Send>(space: &str, run: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{space}")).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            run()
        });
        thread.join().unwrap()
    })
}
