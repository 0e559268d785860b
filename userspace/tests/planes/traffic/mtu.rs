//! Path MTU: behind the node's neighbour there is a link that takes less.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    thread,
    time::{Duration, Instant},
};

use super::{
    super::pair::{Pair, sh},
    bulk::{TCP, address},
    net::{Net, PLANES, example, without},
};

/// What the narrow link takes.
const NARROW: u32 = 1400;
/// Bytes of a transfer.
const BYTES: usize = 5_000_000;
/// How long a transfer may take. One whose packets are lost tries again after
/// 0.2, 0.6 and 1.4 s.
const LIMIT: Duration = Duration::from_secs(20);
const HUNG: Duration = Duration::from_secs(3);
/// The last part of addresses behind the narrow link.
const FAR: u8 = 200;

/// The neighbour as a router, a narrow link to another one, and a host behind.
struct Path<'a> {
    net: &'a Net,
    hop: String,
    far: String,
}

impl<'a> Path<'a> {
    fn new(net: &'a Net) -> Self {
        let (node, peer) = (&net.node, &net.peer);
        let path = Self {
            net,
            hop: format!("{peer}h"),
            far: format!("{peer}f"),
        };
        let (hop, far) = (&path.hop, &path.far);
        sh(&format!("ip netns del {hop}; ip netns del {far}"));
        assert!(sh(&format!(
            "ip netns add {hop} && ip netns add {far} && \
             ip link add ahead mtu {NARROW} netns {peer} type veth peer name back netns {hop} && \
             ip -n {hop} link set back mtu {NARROW} && \
             ip link add ahead netns {hop} type veth peer name back netns {far}"
        )));
        for (space, link, number) in [
            (peer, "ahead", 1),
            (hop, "back", 2),
            (hop, "ahead", 5),
            (far, "back", 6),
        ] {
            net.ok(
                space,
                &format!(
                    "ip link set lo up && echo 0 | tee /proc/sys/net/ipv6/conf/*/accept_dad && \
                     echo 1 | tee /proc/sys/net/ipv4/ip_forward \
                     /proc/sys/net/ipv6/conf/all/forwarding && \
                     ip addr add 10.8.0.{number}/30 dev {link} && \
                     ip addr add fd08:{}::{number}/64 dev {link} && ip link set {link} up",
                    number / 4
                ),
            );
        }
        net.ok(
            far,
            "ip route add default via 10.8.0.5 && ip route add default via fd08:1::5",
        );
        net.ok(
            hop,
            "ip route add default via 10.8.0.1 && ip route add default via fd08:0::1",
        );
        for plane in PLANES {
            for (family, (first, second)) in [("10.8.0.2", "10.8.0.6"), ("fd08:0::2", "fd08:1::6")]
                .into_iter()
                .enumerate()
            {
                let host = plane.host(family, FAR);
                let by = plane.peer(family);
                net.ok(far, &format!("ip addr add {host} dev lo"));
                net.ok(hop, &format!("ip route add {host} via {second}"));
                net.ok(peer, &format!("ip route add {host} via {first}"));
                net.ok(node, &format!("ip route add {host} via {by}"));
            }
        }
        path
    }

    /// Makes the node forget what it knows of paths.
    fn forget(&self) {
        let node = &self.net.node;
        self.net
            .ok(node, "ip -4 route flush cache && ip -6 route flush cache");
    }

    /// The MTU that the node knows of a path.
    fn known(&self, to: &str) -> Option<u32> {
        let route = self.net.ok(&self.net.node, &format!("ip route get {to}"));
        let mut words = route.split_whitespace();
        words.find(|word| *word == "mtu")?;
        words.next()?.parse().ok()
    }
}

impl Drop for Path<'_> {
    fn drop(&mut self) {
        sh(&format!(
            "ip netns del {}; ip netns del {}",
            self.hop, self.far
        ));
    }
}

/// The MTU that a socket goes by: `IP_MTU` of ip(7), `IPV6_MTU` of ipv6(7).
fn mtu(stream: &TcpStream) -> u32 {
    let (level, name) = match stream.local_addr().unwrap() {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let mut mtu = 0_u32;
    let mut length = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the kernel writes both, which live until it returns.
    let result = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            level,
            name,
            (&raw mut mtu).cast(),
            &raw mut length,
        )
    };
    assert_eq!(result, 0);
    mtu
}

/// Sends as fast as it goes; returns how many bytes arrive in time.
fn transfer(sender: &mut TcpStream, mut receiver: TcpStream, limit: Duration) -> usize {
    sender.set_write_timeout(Some(limit)).unwrap();
    receiver.set_read_timeout(Some(limit / 10)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| sender.write_all(&vec![7; BYTES]));
        let (start, mut came) = (Instant::now(), 0);
        let mut block = vec![0; 1 << 17];
        while came < BYTES && start.elapsed() < limit {
            came += receiver.read(&mut block).unwrap_or(0);
        }
        // Whoever still writes is to end.
        receiver.shutdown(std::net::Shutdown::Both).unwrap();
        came
    })
}

/// A transfer from the node to a host behind the narrow link, over a
/// connection that the one or the other has begun.
fn send(
    path: &Path,
    by_node: bool,
    node: SocketAddr,
    far: SocketAddr,
    limit: Duration,
) -> (usize, u32) {
    let (node_space, far_space) = (&path.net.node, &path.far);
    let listen = |space: &str, at| Pair::within(space, || TcpListener::bind(at).unwrap());
    let connect =
        |space: &str, to| Pair::within(space, || TcpStream::connect_timeout(&to, limit).unwrap());
    let (mut sender, receiver) = if by_node {
        let listener = listen(far_space, far);
        (connect(node_space, far), listener.accept().unwrap().0)
    } else {
        let listener = listen(node_space, node);
        // By its default route it would be an address of no plane.
        let source = far.ip();
        path.net.ok(
            far_space,
            &format!(
                "ip route replace {} via {} src {source}",
                node.ip(),
                if far.is_ipv4() {
                    "10.8.0.5"
                } else {
                    "fd08:1::5"
                }
            ),
        );
        let receiver = connect(far_space, node);
        assert_eq!(receiver.local_addr().unwrap().ip(), source);
        (listener.accept().unwrap().0, receiver)
    };
    let came = transfer(&mut sender, receiver, limit);
    (came, mtu(&sender))
}

#[test]
fn a_narrow_path_is_found() {
    let Some(net) = Net::new("mtu") else { return };
    let path = Path::new(&net);
    for family in 0..2 {
        for (plane, port) in TCP {
            let node = address(&plane.node(family), port);
            let far = address(&plane.host(family, FAR), port);
            for by_node in [true, false] {
                path.forget();
                let host = far.ip().to_string();
                assert_eq!(path.known(&host), None);
                let before = net.counts();
                let sent = send(&path, by_node, node, far, LIMIT);
                let came = net.counts().since(&before);
                println!("{node} to {far}: {sent:?} {came:?}");
                assert_eq!(sent, (BYTES, NARROW), "{node} to {far}");
                assert_eq!(path.known(&host), Some(NARROW));
                let always = came.of(&format!("{} pass always", plane.name));
                assert!(always > 0, "{came:?}");
                assert!(came.refused().is_empty(), "{came:?}");
            }
        }
    }
    // Where "too big" may not come in, the transfer hangs.
    let keys = "mode = \"enforce\"\n";
    let others = format!("{keys}always = [\"neighbours\", \"dhcp\", \"multicast\"]\n");
    for (family, rule) in ["ping", "ping6"].into_iter().enumerate() {
        let (plane, port) = TCP[1];
        net.apply(&without(rule).replace(keys, &others));
        path.forget();
        let node = address(&plane.node(family), port);
        let far = address(&plane.host(family, FAR), port);
        let before = net.counts();
        let (came, mtu) = send(&path, true, node, far, HUNG);
        let refused = net.counts().since(&before);
        println!("{node} to {far}: {came} bytes, {refused:?}");
        assert!(came < BYTES && mtu > NARROW, "{came} {mtu}");
        assert!(refused.of("storage drop (default)") > 0, "{refused:?}");
    }
    net.apply(&example());
}
