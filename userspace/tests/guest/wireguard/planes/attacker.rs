//! What somebody tries who has taken over a pod on the workload plane.

use std::{
    ffi::CString,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::fs::FileExt as _,
    },
    thread,
    time::{Duration, Instant},
};

use kldtrace_abi::plane::Fragment;

use super::{
    packet::Packet,
    scene::{CARRIER, NODE, Peer, Scene, UNDER, within},
    services::{NODE_HOST, OTHER_HOST, addresses, ports, tcp_answers, udp_answers},
};

/// How long it waits for each answer.
const WAIT: Duration = Duration::from_secs(2);
/// Packets on their way at once: WireGuard drops what it cannot queue.
const AT_ONCE: u64 = 256;

/// The planes that it wants, by their numbers.
const WANTED: [usize; 2] = [0, 1];

/// Hosts of the wanted planes: the node's own addresses, and those behind it.
fn targets() -> Vec<IpAddr> {
    let hosts = WANTED.map(|plane| [NODE_HOST, OTHER_HOST].map(|host| addresses(plane, host)));
    hosts.into_iter().flatten().flatten().collect()
}

/// What it reaches by connections and datagrams of the kernel's own.
pub fn reached() -> Vec<SocketAddr> {
    let reached = targets().into_iter().map(at_once);
    reached.flatten().collect()
}

/// Services of a host that answer, all asked at once.
fn at_once(target: IpAddr) -> Vec<SocketAddr> {
    let [tcp, udp] = ports();
    let at = |port: u16| SocketAddr::new(target, port);
    let space = Peer::Attacker.space();
    thread::scope(|scope| {
        let ask = |to, answers: fn(SocketAddr, Duration) -> bool| {
            let space = &space;
            scope.spawn(move || within(space, || answers(to, WAIT)).then_some(to))
        };
        let tcp = tcp.into_iter().map(|port| ask(at(port), tcp_answers));
        let udp = udp.into_iter().map(|port| ask(at(port), udp_answers));
        let asked: Vec<_> = tcp.chain(udp).collect();
        let answers = asked.into_iter().map(|one| one.join().unwrap());
        answers.flatten().collect()
    })
}

/// The same past WireGuard, from the underlay: the node's addresses on the
/// wanted planes, by way of its eth0.
pub fn reached_from_outside(scene: &Scene) -> Vec<SocketAddr> {
    let (space, gateway) = (Peer::Attacker.space(), Peer::Attacker.gateway());
    let mut reached = Vec::new();
    for plane in WANTED {
        let target = addresses(plane, NODE_HOST)[0];
        scene.on(CARRIER, &format!("ip route add {target}/32 via {UNDER}"));
        scene.on(
            &space,
            &format!("ip route add {target}/32 via {gateway} dev eth0"),
        );
        reached.extend(at_once(target));
        scene.on(&space, &format!("ip route del {target}/32 dev eth0"));
        scene.on(CARRIER, &format!("ip route del {target}/32"));
    }
    reached
}

/// Packets that it writes itself: from each kind of source, of each kind.
pub fn forged() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for target in targets() {
        let family = usize::from(target.is_ipv6());
        // Its own, the node's, and those of hosts that there are and are not.
        let mut sources: Vec<IpAddr> = [(2, 66), (2, 70), (0, 1), (0, 9), (1, 1), (1, 2)]
            .iter()
            .map(|(plane, host)| addresses(*plane, *host)[family])
            .collect();
        let others: [&str; 2] = match target {
            IpAddr::V4(_) => ["203.0.113.66", "0.0.0.0"],
            IpAddr::V6(_) => ["2001:db8:1::66", "fe80::66"],
        };
        sources.extend(others.map(|one| one.parse::<IpAddr>().unwrap()));
        sources.push(target);
        for source in sources {
            kinds(source, target, &mut packets);
        }
    }
    for packet in &mut packets {
        sum(packet);
    }
    packets
}

/// SYNs in the name of nodes, to what nodes may use.
pub fn as_a_node() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for target in targets() {
        for host in [NODE_HOST, OTHER_HOST, 63] {
            let source = addresses(2, host)[usize::from(target.is_ipv6())];
            packets.push(Packet::tcp(source, target, 2049).bytes());
        }
    }
    for packet in &mut packets {
        sum(packet);
    }
    packets
}

/// A SYN to each port of TCP.
pub fn sweep(plane: usize) -> impl Iterator<Item = Vec<u8>> {
    let source = addresses(2, Peer::Attacker.host())[0];
    let target = addresses(plane, NODE_HOST)[0];
    (1..=u16::MAX).map(move |port| {
        let mut packet = Packet::tcp(source, target, port).bytes();
        sum(&mut packet);
        packet
    })
}

fn kinds(source: IpAddr, target: IpAddr, packets: &mut Vec<Vec<u8>>) {
    let [tcp, udp] = ports();
    let syn = |port| Packet::tcp(source, target, port);
    let mut add = |packet: Packet| packets.push(packet.bytes());
    for port in tcp {
        // SYN, ACK, SYN and ACK, RST, none, all.
        for flags in [2, 16, 18, 4, 0, 63] {
            add(Packet { flags, ..syn(port) });
        }
    }
    // And DHCP's, WireGuard's.
    for port in udp
        .into_iter()
        .chain([67, 68, 546, 547, 51820, 51821, 51822])
    {
        for source_port in [port, 40_000] {
            add(Packet {
                protocol: 17,
                source_port,
                ..syn(port)
            });
        }
    }
    let icmp = if source.is_ipv4() { 1 } else { 58 };
    // An error about a packet's length is left out: see `path_mtu`.
    for kind in (0..=u8::MAX).filter(|kind| icmp == 1 || *kind != 2) {
        add(Packet {
            protocol: icmp,
            icmp: (kind, 1),
            ..syn(0)
        });
    }
    // Tunnels, IPsec, OSPF, VRRP, SCTP and others.
    for protocol in [2, 4, 41, 47, 50, 88, 89, 103, 112, 132, 136, 255] {
        add(Packet { protocol, ..syn(0) });
    }
    for part in [Fragment::First, Fragment::Later] {
        for (protocol, port) in [(6, 22), (6, 2049), (17, 53)] {
            add(Packet {
                protocol,
                part,
                ..syn(port)
            });
        }
    }
    add(Packet {
        options: 8,
        ..syn(22)
    });
}

/// Packets that say of others that they were too long: those pass from
/// everywhere, and the kernel looks whether it has sent such a packet.
pub fn path_mtu() -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    for target in targets() {
        let source = addresses(2, Peer::Attacker.host())[usize::from(target.is_ipv6())];
        let (protocol, icmp) = if target.is_ipv4() {
            (1, (3, 4))
        } else {
            (58, (2, 0))
        };
        let packet = Packet {
            protocol,
            icmp,
            ..Packet::tcp(source, target, 0)
        };
        let mut packet = packet.bytes();
        sum(&mut packet);
        packets.push(packet);
    }
    packets
}

/// Writes the checksum of IPv4's header (RFC 791).
fn sum(packet: &mut [u8]) {
    if packet[0] >> 4 != 4 {
        return;
    }
    let length = usize::from(packet[0] & 15) * 4;
    let words = packet[..length].chunks(2);
    let sum: u32 = words
        .map(|two| u32::from(two[0]) << 8 | u32::from(two[1]))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let sum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// A way into its tunnel for packets as they are.
pub struct Sender {
    socket: OwnedFd,
    device: libc::c_int,
    /// Counts of the node's interfaces.
    counts: File,
}

impl Sender {
    pub fn new() -> Self {
        let name = CString::new(Peer::Attacker.tunnel().device).unwrap();
        let (socket, device) = within(&Peer::Attacker.space(), || {
            // SAFETY: a string that ends with zero, and no memory else; the
            // socket is open and nobody else's.
            unsafe {
                let socket = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0);
                assert!(socket >= 0, "{}", io::Error::last_os_error());
                let device = libc::if_nametoindex(name.as_ptr());
                (OwnedFd::from_raw_fd(socket), device)
            }
        });
        Self {
            socket,
            device: libc::c_int::try_from(device).unwrap(),
            counts: within(NODE, || File::open("/proc/thread-self/net/dev").unwrap()),
        }
    }

    /// Packets that came out at the node's end, by the interface's own count.
    fn received(&self) -> u64 {
        let mut text = [0; 4096];
        let length = self.counts.read_at(&mut text, 0).unwrap();
        let text = str::from_utf8(&text[..length]).unwrap();
        let device = format!("{}:", Peer::Attacker.tunnel().device);
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(&device));
        // Bytes, then packets.
        let mut words = line.unwrap().split_whitespace();
        words.nth(1).unwrap().parse().unwrap()
    }

    /// Sends no faster than they come out. Returns how many did.
    pub fn send(&self, packets: impl Iterator<Item = Vec<u8>>) -> u64 {
        let before = self.received();
        let mut sent = 0;
        for packet in packets {
            self.write(&packet);
            sent += 1;
            if sent % AT_ONCE == 0 {
                self.settle(before + sent);
            }
        }
        self.settle(before + sent);
        self.received() - before
    }

    /// Waits for the last of them, for as long as none is late.
    fn settle(&self, expected: u64) {
        let start = Instant::now();
        while self.received() < expected && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_micros(200));
        }
    }

    fn write(&self, packet: &[u8]) {
        let kind: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
        // SAFETY: plain data.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_protocol = kind.to_be();
        to.sll_ifindex = self.device;
        // SAFETY: the packet and the address live until it returns, and have
        // these lengths.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const to).cast(),
                size_of_val(&to).try_into().unwrap(),
            )
        };
        assert_eq!(
            sent,
            packet.len().cast_signed(),
            "{}",
            io::Error::last_os_error()
        );
    }
}
