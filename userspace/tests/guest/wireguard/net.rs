//! Two namespaces, a pair of interfaces between them, and WireGuard over it.

use std::{
    fs::{self, File},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use super::super::common::sh;

/// UDP ports of WireGuard on the two sides.
pub const PORTS: [u16; 2] = [1000, 2000];
/// Addresses of the two sides on the underlay.
pub const UNDER: [&str; 2] = ["10.0.0.1", "10.0.0.2"];
/// Addresses of the two sides inside.
pub const INSIDE: [&str; 2] = ["10.1.0.1", "10.1.0.2"];

/// One side: 0 or 1.
pub type Side = usize;

/// Two namespaces. Dropping it removes them and all that is in them.
pub struct Pair {
    name: &'static str,
    /// Public keys.
    pub keys: [String; 2],
}

impl Pair {
    /// Two namespaces with an underlay, and without WireGuard.
    pub fn underlay(name: &'static str) -> Self {
        sh("modprobe -a wireguard veth nf_tables nft_counter 2>/dev/null || modprobe wireguard");
        for side in 0..2 {
            sh(&format!(
                "ip netns add {name}{side} && ip -n {name}{side} link set lo up"
            ));
        }
        sh(&format!(
            "ip link add u0 netns {name}0 type veth peer name u1 netns {name}1"
        ));
        let mut keys = [String::new(), String::new()];
        for (side, public) in keys.iter_mut().enumerate() {
            let address = UNDER[side];
            sh(&format!(
                "ip -n {name}{side} addr add {address}/24 dev u{side} && \
                 ip -n {name}{side} link set u{side} up"
            ));
            let key = format!("/tmp/{name}{side}.key");
            sh(&format!("umask 077; wg genkey > {key}; wg pubkey < {key}"))
                .trim()
                .clone_into(public);
        }
        Self { name, keys }
    }

    /// The same with WireGuard, in which the sides are peers.
    pub fn new(name: &'static str) -> Self {
        let pair = Self::underlay(name);
        for side in 0..2 {
            pair.interface(side);
            pair.peer(side);
        }
        pair
    }

    /// A namespace.
    pub fn namespace(&self, side: Side) -> String {
        format!("{}{side}", self.name)
    }

    /// A side's WireGuard interface.
    pub fn device(&self, side: Side) -> String {
        format!("wg{}{side}", self.name)
    }

    /// What our labels call the peer that a side has.
    pub fn peer_of(&self, side: Side) -> &str {
        &self.keys[1 - side][..8]
    }

    /// Runs a command in a namespace.
    #[track_caller]
    pub fn on(&self, side: Side, command: &str) -> String {
        let namespace = self.namespace(side);
        sh(&format!("ip netns exec {namespace} {command}"))
    }

    /// Makes a side's interface.
    pub fn interface(&self, side: Side) {
        let (name, device) = (self.name, self.device(side));
        let (port, inside) = (PORTS[side], INSIDE[side]);
        self.on(side, &format!("ip link add {device} type wireguard"));
        self.on(
            side,
            &format!("wg set {device} private-key /tmp/{name}{side}.key listen-port {port}"),
        );
        self.on(side, &format!("ip addr add {inside}/24 dev {device}"));
        self.on(side, &format!("ip link set {device} up"));
    }

    /// Makes the other side a peer.
    pub fn peer(&self, side: Side) {
        let other = 1 - side;
        let (device, key) = (self.device(side), &self.keys[other]);
        let (inside, under, port) = (INSIDE[other], UNDER[other], PORTS[other]);
        self.on(
            side,
            &format!("wg set {device} peer {key} allowed-ips {inside}/32 endpoint {under}:{port}"),
        );
    }

    /// Takes the other side from the peers.
    pub fn remove_peer(&self, side: Side) {
        let (device, key) = (self.device(side), &self.keys[1 - side]);
        self.on(side, &format!("wg set {device} peer {key} remove"));
    }

    /// Pings the other side through WireGuard until an answer comes.
    #[track_caller]
    pub fn reach(&self, side: Side) {
        let until = Instant::now() + Duration::from_secs(20);
        while !self.ping(side, 1) {
            assert!(Instant::now() < until, "no answer through WireGuard");
        }
    }

    /// Sends so many pings; whether all were answered.
    pub fn ping(&self, side: Side, count: u32) -> bool {
        let (namespace, address) = (self.namespace(side), INSIDE[1 - side]);
        sh(&format!(
            "ip netns exec {namespace} ping -q -c {count} -W 3 {address} >/dev/null 2>&1 \
             && echo yes || echo no"
        )) == "yes\n"
    }

    /// Counts messages of each type as they enter a namespace, before anything
    /// of WireGuard sees them: in1 to in4.
    pub fn count_incoming(&self, side: Side) {
        let port = format!("dport {}", PORTS[side]);
        self.count_messages(side, "in", "prerouting priority -300", &port);
    }

    /// Counts messages of each type as they leave a namespace: out1 to out4.
    pub fn count_outgoing(&self, side: Side) {
        let port = format!("sport {}", PORTS[side]);
        self.count_messages(side, "out", "postrouting priority 300", &port);
    }

    fn count_messages(&self, side: Side, way: &str, hook: &str, port: &str) {
        let mut rules = vec![
            format!("add table ip {way}"),
            format!("add chain ip {way} c {{ type filter hook {hook}; }}"),
        ];
        for kind in 1..=4 {
            // The first byte behind the UDP header.
            let rule = format!("udp {port} @th,64,8 {kind} counter name {way}{kind}");
            rules.push(format!("add counter ip {way} {way}{kind}"));
            rules.push(format!("add rule ip {way} c {rule}"));
        }
        let rules = rules.join("; ");
        self.on(side, &format!("nft '{rules}'"));
    }

    /// Packets that such a counter has seen.
    pub fn counted(&self, side: Side, counter: &str) -> u64 {
        let table = counter.trim_end_matches(char::is_numeric);
        let text = self.on(side, &format!("nft list counter ip {table} {counter}"));
        let words: Vec<_> = text.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "packets").unwrap();
        words[at + 1].parse().unwrap()
    }

    /// Drops what comes for WireGuard on a side.
    pub fn block(&self, side: Side) {
        let port = PORTS[side];
        self.on(
            side,
            &format!(
                "nft 'add table ip b; \
                 add chain ip b in {{ type filter hook prerouting priority -200; }}; \
                 add rule ip b in udp dport {port} drop'"
            ),
        );
    }

    /// Lets it through again.
    pub fn unblock(&self, side: Side) {
        self.on(side, "nft delete table ip b");
    }

    /// Drops what WireGuard of a side sends, and nothing that others send.
    pub fn mute(&self, side: Side) {
        let port = PORTS[side];
        self.on(
            side,
            &format!(
                "nft 'add table ip m; \
                 add chain ip m out {{ type filter hook output priority 0; }}; \
                 add rule ip m out udp sport {port} drop'"
            ),
        );
    }

    /// Delays what a side sends on the underlay.
    pub fn delay(&self, side: Side, milliseconds: u64) {
        self.on(
            side,
            &format!("tc qdisc replace dev u{side} root netem delay {milliseconds}ms limit 10000"),
        );
    }

    /// The public columns of `wg show dump` for a side's only peer: last
    /// handshake, bytes received, bytes sent.
    pub fn dump(&self, side: Side) -> [u64; 3] {
        let device = self.device(side);
        let text = self.on(side, &format!("wg show {device} dump"));
        let line = text.lines().nth(1).unwrap();
        let columns: Vec<&str> = line.split('\t').collect();
        [4, 5, 6].map(|at| columns[at].parse().unwrap())
    }

    /// A counter of a side's WireGuard interface in /sys.
    pub fn statistic(&self, side: Side, name: &str) -> u64 {
        let device = self.device(side);
        let text = self.on(
            side,
            &format!("cat /sys/class/net/{device}/statistics/{name}"),
        );
        text.trim().parse().unwrap()
    }

    /// Does something in a namespace.
    pub fn within<T: Send + 'static>(
        &self,
        side: Side,
        act: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let path = format!("/run/netns/{}", self.namespace(side));
        let acted = thread::spawn(move || {
            let file = File::open(path).unwrap();
            // SAFETY: an open descriptor; it moves this thread alone.
            let status = unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(status, 0);
            act()
        });
        acted.join().unwrap()
    }

    /// A UDP socket in a namespace.
    pub fn socket(&self, side: Side, port: u16) -> UdpSocket {
        let address: SocketAddr = format!("{}:{port}", UNDER[side]).parse().unwrap();
        let socket = self.within(side, move || UdpSocket::bind(address).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        socket
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in 0..2 {
            let namespace = self.namespace(side);
            // Not through sh, which panics.
            let _ = std::process::Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
            let _ = fs::remove_file(format!("/tmp/{namespace}.key"));
        }
    }
}

/// What a test that floods WireGuard ends with. The module is under load for a
/// second after that, for whoever comes, on all interfaces (`last_under_load` of
/// drivers/net/wireguard/receive.c): another test's handshake would be asked for
/// a cookie.
pub fn load_is_over() {
    thread::sleep(Duration::from_millis(1500));
}

/// Waits until something is so. It looks seldom: to look is work for an emulated
/// machine, and to wait is none.
#[track_caller]
pub fn wait(what: &str, seconds: u64, mut so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !so() {
        assert!(Instant::now() < until, "not in {seconds} s: {what}");
        thread::sleep(Duration::from_millis(500));
    }
}
