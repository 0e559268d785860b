//! What the platform runs on each plane, and who uses it.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use super::scene::{Peer, TUNNELS, within};

/// The longest that an answer takes: a handshake may come before it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A host on the planes, by the last number of its address.
pub const NODE_HOST: u8 = 1;
pub const OTHER_HOST: u8 = 2;

/// Services of TCP, and of UDP.
pub struct Ports {
    pub tcp: &'static [u16],
    pub udp: &'static [u16],
}

/// What peers use of a host on a plane: number of the plane in [`TUNNELS`].
pub struct Use {
    pub by: Peer,
    pub plane: usize,
    pub host: u8,
    pub ports: Ports,
}

const fn uses(by: Peer, plane: usize, host: u8, tcp: &'static [u16], udp: &'static [u16]) -> Use {
    Use {
        by,
        plane,
        host,
        ports: Ports { tcp, udp },
    }
}

/// By the list of the platform's services, not by the policy.
pub const USES: &[Use] = &[
    // SSH and Ansible, scrapes (kldtrace, node_exporter, HAProxy), Prometheus,
    // Alertmanager, Grafana, Loki, OTLP, Keycloak, Vault, step-ca, DNS, BGP;
    // gossip, NTP, BFD.
    uses(
        Peer::Operator,
        0,
        NODE_HOST,
        &[
            22, 9750, 9100, 8405, 9090, 9093, 3000, 3100, 4317, 4318, 8443, 8200, 9000, 53, 179,
        ],
        &[9094, 53, 123, 3784],
    ),
    // ZFS by SSH, NFS, iSCSI, PostgreSQL, Redis and Sentinel, BGP; BFD.
    uses(
        Peer::Storage,
        1,
        NODE_HOST,
        &[22, 2049, 3260, 5432, 6379, 26379, 179],
        &[3784],
    ),
    // Kubernetes and etcd, Cilium, HAProxy, Keycloak, Vault, DNS, migration of
    // guests, BGP; DNS, the overlay, BFD.
    uses(
        Peer::Workload,
        2,
        NODE_HOST,
        &[
            6443, 10250, 2379, 2380, 30080, 4240, 4244, 80, 443, 8443, 8200, 53, 16514, 49152, 179,
        ],
        &[53, 8472, 30080, 3784],
    ),
    // A pod's own: the attacker's tunnel works.
    uses(Peer::Attacker, 2, NODE_HOST, &[443, 53, 30080], &[53]),
    // HAProxy, BGP; HTTP/3, IKE, BFD.
    uses(
        Peer::Partner,
        3,
        NODE_HOST,
        &[80, 443, 179],
        &[443, 500, 4500, 3784],
    ),
    // Through the node: operators to the other planes, volumes and databases,
    // and the world.
    uses(Peer::Operator, 1, OTHER_HOST, &[22, 9100], &[]),
    uses(Peer::Operator, 2, OTHER_HOST, &[22, 9100, 6443], &[]),
    uses(Peer::Operator, 3, OTHER_HOST, &[443], &[]),
    uses(
        Peer::Workload,
        1,
        OTHER_HOST,
        &[2049, 3260, 5432, 6379],
        &[],
    ),
    uses(Peer::Workload, 1, NODE_HOST, &[2049, 5432], &[]),
    uses(Peer::Workload, 3, OTHER_HOST, &[443, 8080], &[443]),
];

/// A host's addresses on a plane.
pub fn addresses(plane: usize, host: u8) -> [IpAddr; 2] {
    let tunnel = &TUNNELS[plane];
    [
        format!("{}{host}", tunnel.v4).parse().unwrap(),
        format!("{}{host:x}", tunnel.v6).parse().unwrap(),
    ]
}

/// All ports that somebody uses, of TCP and of UDP.
pub fn ports() -> [Vec<u16>; 2] {
    let all = |of: fn(&Ports) -> &'static [u16]| {
        let mut ports: Vec<_> = USES
            .iter()
            .flat_map(|one| of(&one.ports))
            .copied()
            .collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    };
    [all(|ports| ports.tcp), all(|ports| ports.udp)]
}

/// Listens on all of them in a namespace, until the program ends: what comes is
/// sent back.
pub fn listen(space: &str) {
    within(space, || {
        let [tcp, udp] = ports();
        for port in tcp {
            let listener = TcpListener::bind(("::", port)).unwrap();
            thread::spawn(move || listener.incoming().for_each(|one| drop(one.map(echo))));
        }
        for port in udp {
            let socket = UdpSocket::bind(("::", port)).unwrap();
            thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let _ = socket.send_to(&bytes[..length], from);
                }
            });
        }
    });
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 64];
    // Nobody waits long for a peer that says nothing.
    let _ = stream.set_read_timeout(Some(PATIENCE));
    if let Ok(length) = stream.read(&mut bytes) {
        let _ = stream.write_all(&bytes[..length]);
    }
}

/// Whether a connection is made, and answers. A namespace's thread calls it.
pub fn tcp_answers(to: SocketAddr, patience: Duration) -> bool {
    let Ok(mut stream) = TcpStream::connect_timeout(&to, patience) else {
        return false;
    };
    stream.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = [0; 5];
    stream.write_all(b"hello").is_ok()
        && stream.read_exact(&mut bytes).is_ok()
        && bytes == *b"hello"
}

/// Whether a datagram is answered.
pub fn udp_answers(to: SocketAddr, patience: Duration) -> bool {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut bytes = [0; 64];
    socket.connect(to).is_ok()
        && socket.send(b"hello").is_ok()
        && matches!(socket.recv(&mut bytes), Ok(5))
}

/// Uses that were not answered, and how many were.
pub fn failing() -> (Vec<String>, usize) {
    let (mut failing, mut answered) = (Vec::new(), 0);
    for one in USES {
        within(&one.by.space(), || {
            for address in addresses(one.plane, one.host) {
                let tcp = one.ports.tcp.iter().map(|port| ("tcp", *port));
                let udp = one.ports.udp.iter().map(|port| ("udp", *port));
                for (protocol, port) in tcp.chain(udp) {
                    let to = SocketAddr::new(address, port);
                    let answers = match protocol {
                        "tcp" => tcp_answers(to, PATIENCE),
                        _ => udp_answers(to, PATIENCE),
                    };
                    if answers {
                        answered += 1;
                    } else {
                        failing.push(format!("{:?} > {protocol} {to}", one.by));
                    }
                }
            }
        });
    }
    (failing, answered)
}
