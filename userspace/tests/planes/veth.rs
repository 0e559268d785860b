//! Real traffic through a pair of interfaces: the kernel's own TCP, UDP and
//! ICMP under a policy.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    thread,
    time::Duration,
};

use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use kldtrace::planes::{
    compile,
    install::{Programs, write},
};
use kldtrace_abi::plane::Link;

use super::{agree::read, kernel::root};

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

pub fn sh(command: &str) -> bool {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    output.status.success()
}

/// Two namespaces with a link between them; gone when dropped.
pub struct Pair;

impl Pair {
    pub const NODE: &str = "kldplanenode";
    pub const PEER: &str = "kldplanepeer";

    pub fn new() -> Self {
        let pair = Self;
        let (node, peer) = (Self::NODE, Self::PEER);
        assert!(sh(&format!(
            "ip netns add {node} && ip netns add {peer} && \
             ip link add node netns {node} type veth peer name peer netns {peer} && \
             ip -n {node} addr add 10.99.0.1/24 dev node && ip -n {node} link set node up && \
             ip -n {peer} addr add 10.99.0.2/24 dev peer && ip -n {peer} link set peer up"
        )));
        pair
    }

    /// Runs something in a namespace, in a thread of its own.
    pub fn within<T: Send>(name: &str, run: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{name}")).unwrap();
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // SAFETY: setns takes a descriptor, which is open.
                let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
                assert_eq!(entered, 0);
                run()
            });
            thread.join().unwrap()
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for name in [Self::NODE, Self::PEER] {
            sh(&format!("ip netns del {name}"));
        }
    }
}

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
    let _pair = Pair::new();
    let compiled = compile::image(&read(POLICY), 1).unwrap();
    let mut programs = Programs::load(1, Link::Ethernet, 100, false).unwrap();
    programs.swap(&write(&compiled.cells).unwrap()).unwrap();
    Pair::within(Pair::NODE, || attach(&mut programs));

    let address = |host: u8, port: u16| SocketAddr::from(([10, 99, 0, host], port));
    let listen = |name: &str, to| Pair::within(name, || TcpListener::bind(to).unwrap());
    for (port, passes) in [(7001, true), (7002, false)] {
        let server = listen(Pair::NODE, address(1, port));
        assert_eq!(
            connects(Pair::PEER, &server, address(1, port)),
            passes,
            "to {port}"
        );
    }
    // What the node begins needs no rule, on whatever port.
    let server = listen(Pair::PEER, address(2, 7002));
    assert!(connects(Pair::NODE, &server, address(2, 7002)));

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
        bind(Pair::NODE, address(1, 7002)),
        bind(Pair::PEER, address(2, 7003)),
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
        assert!(ping(Pair::PEER, "1") && ping(Pair::NODE, "2"));
    } else {
        println!("skipped: ping is not installed");
    }
}
