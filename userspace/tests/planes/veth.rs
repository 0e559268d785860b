//! Real traffic through a pair of interfaces: the kernel's own TCP, UDP and
//! ICMP under a policy.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use kldtrace::planes::{
    compile,
    install::{Programs, write},
};
use kldtrace_abi::plane::Link;

use super::{
    agree::read,
    kernel::root,
    pair::{Pair, sh},
};

pub const POLICY: &str = r#"
[[plane]]
name = "p"
interfaces = ["node"]
prefixes = ["10.99.0.0/24"]
mode = "enforce"

[[plane.rule]]
name = "allowed"
verdict = "allow"
protocol = ["tcp", "udp"]
ports = [7001]

[[plane.rule]]
name = "ping"
verdict = "allow"
protocol = "icmp"
icmp = ["echo-request"]
"#;
const WAIT: Duration = Duration::from_millis(500);

/// Attaches both programs to the node's interface.
pub fn attach(programs: &mut Programs) {
    let ingress: &mut Xdp = programs
        .ebpf
        .program_mut("plane_ingress")
        .unwrap()
        .try_into()
        .unwrap();
    ingress.load().unwrap();
    ingress.attach("node", XdpMode::Driver).unwrap();
    let egress = programs.ebpf.program_mut("plane_egress").unwrap();
    let egress: &mut SchedClassifier = egress.try_into().unwrap();
    egress.load().unwrap();
    egress.attach("node", TcAttachType::Egress).unwrap();
}

/// Whether a connection from one to the other is made, and carries bytes.
fn connects(from: &str, listener: &TcpListener, to: SocketAddr) -> bool {
    let stream = Pair::within(from, || TcpStream::connect_timeout(&to, WAIT));
    let Ok(mut stream) = stream else { return false };
    let (mut accepted, _) = listener.accept().unwrap();
    for side in [&stream, &accepted] {
        side.set_read_timeout(Some(WAIT)).unwrap();
    }
    let mut bytes = vec![7; 100_000];
    let sent = bytes.clone();
    thread::scope(|scope| {
        scope.spawn(|| stream.write_all(&sent));
        let read = accepted.read_exact(&mut bytes);
        read.is_ok()
    })
}

#[test]
fn real_traffic_passes_as_the_policy_says() {
    if !root() {
        return;
    }
    let pair = Pair::new("plane");
    let (node_space, peer_space) = (&pair.node[..], &pair.peer[..]);
    let compiled = compile::image(&read(POLICY), 1).unwrap();
    let mut programs = Programs::load(1, Link::Ethernet, 100, false).unwrap();
    programs.swap(&write(&compiled.cells).unwrap()).unwrap();
    Pair::within(node_space, || attach(&mut programs));

    let address = |host: u8, port: u16| SocketAddr::from(([10, 99, 0, host], port));
    let listen = |name: &str, to| Pair::within(name, || TcpListener::bind(to).unwrap());
    for (port, passes) in [(7001, true), (7002, false)] {
        let server = listen(node_space, address(1, port));
        assert_eq!(
            connects(peer_space, &server, address(1, port)),
            passes,
            "to {port}"
        );
    }
    // What the node begins needs no rule, on whatever port.
    let server = listen(peer_space, address(2, 7002));
    assert!(connects(node_space, &server, address(2, 7002)));

    let bind = |name: &str, to| {
        let socket = Pair::within(name, || UdpSocket::bind(to).unwrap());
        socket.set_read_timeout(Some(WAIT)).unwrap();
        socket
    };
    let hears = |socket: &UdpSocket| match socket.recv(&mut [0; 9]) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("{error}"),
    };
    let (node, peer) = (
        bind(node_space, address(1, 7002)),
        bind(peer_space, address(2, 7003)),
    );
    peer.send_to(b"first", address(1, 7002)).unwrap();
    assert!(!hears(&node), "nobody asked");
    node.send_to(b"question", address(2, 7003)).unwrap();
    assert!(hears(&peer));
    peer.send_to(b"answer", address(1, 7002)).unwrap();
    assert!(hears(&node), "the answer");

    let ping = |from: &str, to: &str| {
        sh(&format!(
            "ip netns exec {from} ping -q -c 1 -W 1 10.99.0.{to}"
        ))
    };
    if sh("command -v ping") {
        assert!(ping(peer_space, "1") && ping(node_space, "2"));
    } else {
        println!("skipped: ping is not installed");
    }
}
