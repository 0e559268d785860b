//! What must not pass: each service of each plane is tried from each plane's
//! interface, with the source of each and to the node's address of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    net::SocketAddr,
    os::fd::AsRawFd as _,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, sendto,
        setsockopt, socket, sockopt::BindToDevice,
    },
};

use super::{
    super::{apply::node::wait_for, pair::Pair},
    bulk::address,
    net::{EXTERNAL, MANAGEMENT, Net, PARTNERS, PLANES, Plane, STORAGE, WORKLOAD, example},
    program::installed,
    seen::{At, First, seen, watch},
};

/// What each plane's own hosts may reach, as people would say it: TCP, UDP.
const OWN: [Services; 5] = [
    (
        MANAGEMENT,
        &[
            22, 53, 123, 179, 3000, 3100, 4317, 4318, 8200, 8201, 8405, 8443, 9000, 9090, 9093,
            9094, 9100, 9750,
        ],
        &[
            53, 123, 3000, 3100, 3784, 3785, 4317, 4318, 4784, 9090, 9093, 9094,
        ],
    ),
    (
        STORAGE,
        &[22, 179, 2049, 3260, 5432, 6379, 9091, 26379],
        &[3784, 3785, 4784],
    ),
    (
        WORKLOAD,
        &[
            53, 80, 179, 443, 2379, 2380, 4240, 4244, 6443, 8200, 8443, 10250, 16514, 30000, 32767,
            49152, 49215,
        ],
        &[53, 3784, 3785, 4784, 8472, 30000, 32767],
    ),
    (EXTERNAL, &[80, 443], &[443]),
    (
        PARTNERS,
        &[80, 179, 443],
        &[443, 500, 3784, 3785, 4500, 4784],
    ),
];

/// A plane's services.
type Services = (Plane, &'static [u16], &'static [u16]);

/// Nobody's: tried as well.
const NOBODYS: [u16; 4] = [23, 111, 8080, 51820];

/// Ports of TCP that may cross, from where to where, and whether they may also
/// arrive after they have crossed elsewhere.
const CROSS: [(Plane, Plane, &[u16], bool); 4] = [
    (MANAGEMENT, STORAGE, &[22, 9100], true),
    (MANAGEMENT, WORKLOAD, &[22, 6443, 9100], true),
    (WORKLOAD, STORAGE, &[2049, 3260, 5432, 6379], true),
    (MANAGEMENT, EXTERNAL, &[80, 443], false),
];

/// A host of the world, to which the node is the way.
const WORLD: u8 = 200;

/// What is tried: on an interface, from a source, to the node's address on a
/// plane or the world's.
#[derive(Clone, Copy)]
struct Try {
    on: Plane,
    from: Plane,
    to: Plane,
    host: u8,
    family: usize,
    protocol: &'static str,
    port: u16,
}

impl Try {
    fn first(&self) -> First {
        (
            self.on.interface.to_owned(),
            self.protocol,
            self.from.peer(self.family),
            self.to.host(self.family, self.host),
            self.port,
        )
    }

    /// `None` if it may pass; else where it is counted.
    fn refused(&self) -> Option<String> {
        let Self { on, from, to, .. } = *self;
        let port = &self.port;
        let on_name = on.name;
        let tcp = self.protocol == "tcp";
        // WireGuard's ports take nothing else, wherever it wants to go.
        if on == EXTERNAL && !tcp && (51_820..=51_823).contains(port) {
            return Some("external drop wireguard".to_owned());
        }
        if on.name == from.name && on.name == to.name {
            let (_, tcp_ports, udp_ports) = OWN.iter().find(|(one, ..)| *one == from).unwrap();
            let ports = if tcp { tcp_ports } else { udp_ports };
            return (!ports.contains(port)).then(|| format!("{on_name} drop (default)"));
        }
        let way = format!("{} > {}", from.name, to.name);
        if on == WORKLOAD && from == WORKLOAD && to == EXTERNAL {
            // Pods use the world, but of this node what all may.
            let own = self.host == 1 && !(tcp && OWN[3].1.contains(port));
            return own.then(|| format!("workload drop {way}: own"));
        }
        let cross = CROSS.iter().find(|(one, other, _, arrives)| {
            (*one, other.name) == (from, to.name) && (on == from || *arrives && on == to)
        });
        match cross {
            Some((_, _, ports, _)) if tcp && ports.contains(port) => None,
            Some(_) => Some(format!("{on_name} drop {way}: (default)")),
            None => Some(format!("{on_name} drop cross")),
        }
    }

    /// Sends its first packet, and no second.
    fn send(&self) {
        let storage = |address: SocketAddr| SockaddrStorage::from(address);
        let from = storage(address(&self.from.peer(self.family), 0));
        let to = storage(address(&self.to.host(self.family, self.host), self.port));
        let family = [AddressFamily::Inet, AddressFamily::Inet6][self.family];
        let kind = match self.protocol {
            "tcp" => SockType::Stream,
            _ => SockType::Datagram,
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(family, kind, flags, None).unwrap();
        setsockopt(&socket, BindToDevice, &OsString::from(self.on.interface)).unwrap();
        bind(socket.as_raw_fd(), &from).unwrap();
        if kind == SockType::Stream {
            let connected = connect(socket.as_raw_fd(), &to);
            assert_eq!(connected, Err(Errno::EINPROGRESS));
        } else {
            sendto(socket.as_raw_fd(), b"?", &to, MsgFlags::empty()).unwrap();
        }
    }
}

fn all() -> Vec<Try> {
    let ports = |of: fn(&Services) -> &'static [u16]| {
        let own = OWN.iter().flat_map(of);
        own.chain(&NOBODYS).copied().collect::<BTreeSet<_>>()
    };
    let (tcp, udp) = (ports(|plane| plane.1), ports(|plane| plane.2));
    let mut all = Vec::new();
    for on in PLANES {
        for (from, ..) in OWN {
            for (to, host) in PLANES
                .map(|to| (to, 1))
                .into_iter()
                .chain([(EXTERNAL, WORLD)])
            {
                for (protocol, ports) in [("tcp", &tcp), ("udp", &udp)] {
                    for (port, family) in ports.iter().flat_map(|port| [(*port, 0), (*port, 1)]) {
                        all.push(Try {
                            on,
                            from,
                            to,
                            host,
                            family,
                            protocol,
                            port,
                        });
                    }
                }
            }
        }
    }
    all
}

#[test]
fn nothing_else_passes_and_each_refusal_is_counted() {
    if !installed(&["nft"]) {
        return;
    }
    let Some(net) = Net::new("not") else { return };
    // By each interface the neighbour finds the node, whatever the address.
    for (metric, by) in PLANES.into_iter().enumerate() {
        for (to, host) in PLANES
            .map(|to| (to, 1))
            .into_iter()
            .chain([(EXTERNAL, WORLD)])
        {
            for family in 0..2 {
                let (to, gateway) = (to.host(family, host), by.node(family));
                let way = if to == gateway {
                    String::new()
                } else {
                    format!("via {gateway}")
                };
                let metric = if to == gateway { 1 } else { 10 + metric };
                let device = by.interface;
                let route = format!("{to} {way} dev {device} metric {metric}");
                net.ok(&net.peer, &format!("ip route add {route}"));
            }
        }
        for family in 0..2 {
            // So that no packet waits for an answer with others.
            net.ok(&net.peer, &format!("ping -c 1 -W 2 {}", by.node(family)));
        }
    }
    watch(&net, &net.peer, At::Leaving);
    watch(&net, &net.node, At::End);
    let before = net.counts();
    let all = all();
    Pair::within(&net.peer, || all.iter().for_each(Try::send));

    let sent: BTreeMap<First, u64> = all.iter().map(|one| (one.first(), 1)).collect();
    assert_eq!(sent.len(), all.len());
    wait_for("all to leave", || {
        let left: u64 = seen(&net, &net.peer).values().sum();
        (left >= all.len() as u64).then_some(())
    });
    assert!(seen(&net, &net.peer) == sent, "each leaves once");
    let mut refused = BTreeMap::new();
    let mut passed = BTreeMap::new();
    for one in &all {
        match one.refused() {
            Some(name) => *refused.entry(name).or_insert(0) += 1,
            None => *passed.entry(one.first()).or_insert(0) += 1,
        }
    }
    println!("{} sent, {} pass; {refused:#?}", all.len(), passed.len());
    let arrived = wait_for("what passes", || {
        let arrived = seen(&net, &net.node);
        (arrived.len() >= passed.len()).then_some(arrived)
    });
    let wrong: Vec<_> = arrived
        .iter()
        .filter(|(first, count)| passed.get(*first) != Some(count))
        .chain(
            passed
                .iter()
                .filter(|(first, _)| !arrived.contains_key(*first)),
        )
        .collect();
    assert!(wrong.is_empty(), "{} are wrong: {wrong:#?}", wrong.len());
    let counted = net.counts().since(&before);
    let counted: BTreeMap<_, _> = counted
        .refused()
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect();
    assert_eq!(counted, refused);
    net.apply(&example());
}
