//! Bulk: TCP, datagrams, echoes and datagrams in parts. What is sent arrives,
//! all of it, once, and as it was; what does not is counted.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};

use super::{
    super::{apply::node::wait_for, pair::Pair},
    net::{EXTERNAL, MANAGEMENT, Net, PLANES, Plane, STORAGE, WORKLOAD, without},
    program::installed,
};

/// Bytes of a connection, each way.
const BYTES: usize = 50_000_000;
/// Datagrams of a flow, each way.
const DATAGRAMS: u32 = 20_000;
/// So many are on their way at most.
const WINDOW: u32 = 64;
/// The longest wait for a datagram that may be lost.
const WAIT: Duration = Duration::from_secs(2);
/// A port that no rule names.
const OTHER: u16 = 5201;

/// Planes, and a port of TCP that may come in there.
pub const TCP: [(Plane, u16); 4] = [
    (MANAGEMENT, 9090),
    (STORAGE, 9091),
    (WORKLOAD, 30_000),
    (EXTERNAL, 443),
];

pub fn address(host: &str, port: u16) -> SocketAddr {
    SocketAddr::new(host.parse().unwrap(), port)
}

/// Sends bytes that never repeat, and reads the other's; returns how many came
/// and their checksum, and the checksum of what was sent.
fn exchange(mut stream: TcpStream, seed: u64) -> (usize, u32, u32) {
    stream.set_read_timeout(Some(WAIT)).unwrap();
    stream.set_write_timeout(Some(WAIT)).unwrap();
    let mut from = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sum = crc32fast::Hasher::new();
        let mut block = vec![0; BYTES / 50];
        for _ in 0..50 {
            random.fill(&mut block);
            sum.update(&block);
            stream.write_all(&block).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        sum.finalize()
    });
    let (mut bytes, mut sum) = (0, crc32fast::Hasher::new());
    let mut block = vec![0; 1 << 18];
    loop {
        let read = from.read(&mut block).unwrap();
        if read == 0 {
            break;
        }
        sum.update(&block[..read]);
        bytes += read;
    }
    (bytes, sum.finalize(), writing.join().unwrap())
}

/// A connection from one namespace to another, with bulk both ways at once.
fn tcp(from: &str, to: &str, address: SocketAddr) {
    let listener = Pair::within(to, || TcpListener::bind(address).unwrap());
    let client = Pair::within(from, || TcpStream::connect_timeout(&address, WAIT).unwrap());
    let (server, _) = listener.accept().unwrap();
    let serving = thread::spawn(|| exchange(server, 1));
    let (came, received, sent) = exchange(client, 2);
    let (arrived, at_server, by_server) = serving.join().unwrap();
    assert_eq!((came, arrived), (BYTES, BYTES), "{address}");
    assert_eq!((received, at_server), (by_server, sent), "{address}");
}

fn bind(space: &str, address: SocketAddr) -> UdpSocket {
    let socket = Pair::within(space, || UdpSocket::bind(address).unwrap());
    socket.set_read_timeout(Some(WAIT)).unwrap();
    socket
}

/// Datagrams to an address, each of which comes back.
fn udp(from: &UdpSocket, to: &UdpSocket, count: u32) {
    let address = to.local_addr().unwrap();
    let mut seen = vec![[0_u8; 2]; count as usize];
    let echoing = to.try_clone().unwrap();
    let echo = thread::spawn(move || {
        let mut buffer = [0; 2000];
        let mut numbers = Vec::new();
        for _ in 0..count {
            let Ok((length, back)) = echoing.recv_from(&mut buffer) else {
                break;
            };
            numbers.push(u32::from_ne_bytes(buffer[..4].try_into().unwrap()));
            echoing.send_to(&buffer[..length], back).unwrap();
        }
        numbers
    });
    let (mut sent, mut came) = (0, 0);
    let mut buffer = [7; 1000];
    while came < count {
        while sent < count && sent - came < WINDOW {
            buffer[..4].copy_from_slice(&u32::to_ne_bytes(sent));
            from.send_to(&buffer, address).unwrap();
            sent += 1;
        }
        let Ok(length) = from.recv(&mut buffer) else {
            break;
        };
        assert_eq!(length, buffer.len());
        let number = u32::from_ne_bytes(buffer[..4].try_into().unwrap());
        seen[number as usize][0] += 1;
        came += 1;
    }
    for number in echo.join().unwrap() {
        seen[number as usize][1] += 1;
    }
    let once = seen.iter().filter(|seen| **seen == [1, 1]).count();
    assert_eq!(once, count as usize, "{address}: sent {sent}, came {came}");
}

/// Packets that the neighbour's interfaces have sent, and those that the
/// planes have counted, at a moment in which none is on its way.
fn ledger(net: &Net) -> [(u64, u64); 4] {
    wait_for("a quiet moment", || {
        let counts = net.counts();
        let sent = PLANES.map(|plane| {
            let file = format!("/sys/class/net/{}/statistics/tx_packets", plane.interface);
            let text = net.ok(&net.peer, &format!("cat {file}"));
            text.trim().parse::<u64>().unwrap()
        });
        (net.counts() == counts).then(|| {
            let mut number = 0;
            sent.map(|sent| {
                let own = format!("{} ", PLANES[number].name);
                number += 1;
                let of_plane = counts.0.iter().filter(|(name, _)| name.starts_with(&own));
                (sent, of_plane.map(|(_, count)| count).sum())
            })
        })
    })
}

#[test]
fn bulk_arrives_whole_and_each_packet_is_counted() {
    let Some(net) = Net::new("bulk") else { return };
    let before = net.counts();
    let start = ledger(&net);
    let (node, peer) = (&net.node, &net.peer);
    for family in 0..2 {
        for (plane, port) in TCP {
            tcp(peer, node, address(&plane.node(family), port));
            // What the node begins needs no rule.
            tcp(node, peer, address(&plane.peer(family), OTHER));
            let own = bind(node, address(&plane.node(family), OTHER));
            let other = bind(peer, address(&plane.peer(family), OTHER));
            udp(&own, &other, DATAGRAMS);
        }
        for (plane, port) in [(WORKLOAD, 30_000), (MANAGEMENT, 9094)] {
            let server = bind(node, address(&plane.node(family), port));
            let client = bind(peer, address(&plane.peer(family), OTHER));
            udp(&client, &server, DATAGRAMS);
        }
    }
    let came = net.counts().since(&before);
    assert!(came.refused().is_empty(), "{came:?}");
    for (name, first) in [
        ("management pass monitoring", 4),
        ("storage pass zfs-send", 2),
        ("external pass web", 2),
    ] {
        assert!(came.of(name) >= first, "{name}: {came:?}");
    }
    let end = ledger(&net);
    for ((start, end), plane) in start.into_iter().zip(end).zip(PLANES) {
        let (sent, counted) = (end.0 - start.0, end.1 - start.1);
        println!("{}: {sent} packets sent, {counted} counted", plane.name);
        assert_eq!(sent, counted, "{}", plane.name);
    }

    // It is the rule that lets it in.
    net.apply(&without("node-ports"));
    let (server, client) = (
        bind(node, address(&WORKLOAD.node(0), 30_000)),
        bind(peer, address(&WORKLOAD.peer(0), OTHER)),
    );
    client.send_to(b"?", server.local_addr().unwrap()).unwrap();
    server.recv(&mut [0; 9]).unwrap_err();
}

/// Sends datagrams of a length to a port of the node. Returns those that
/// arrive as they were, and what became of their packets otherwise.
fn parts(net: &Net, plane: Plane, family: usize, port: u16, length: usize) -> (usize, Refused) {
    let before = net.counts();
    let to = address(&plane.node(family), port);
    let server = bind(&net.node, to);
    let client = bind(&net.peer, address(&plane.peer(family), OTHER));
    let mut arrived = 0;
    let mut buffer = vec![0; 70_000];
    for number in 0..10 {
        let sent: Vec<u8> = (0..length).map(|at| (at / 8) as u8 ^ number).collect();
        client.send_to(&sent, to).unwrap();
        server.set_read_timeout(Some(WAIT / 10)).unwrap();
        if let Ok(length) = server.recv(&mut buffer) {
            assert!(buffer[..length] == sent, "{to}");
            arrived += 1;
        }
    }
    let came = net.counts().since(&before);
    let refused = came.refused().into_iter();
    (
        arrived,
        refused
            .map(|(name, count)| (name.to_owned(), count))
            .collect(),
    )
}

/// What was refused, by name.
type Refused = Vec<(String, u64)>;

#[test]
fn parts_of_datagrams_arrive_where_the_policy_says() {
    let Some(net) = Net::new("part") else { return };
    for family in 0..2 {
        // Cilium's overlay.
        for length in [4000, 60_000] {
            assert_eq!(parts(&net, WORKLOAD, family, 8472, length), (10, vec![]));
        }
        assert_eq!(parts(&net, MANAGEMENT, family, 9094, 1000), (10, vec![]));
        // Of three parts the first has the port, so ten times two are dropped.
        let default = "management drop (default)".to_owned();
        assert_eq!(
            parts(&net, MANAGEMENT, family, 9094, 4000),
            (0, vec![(default, 20)])
        );
    }
    net.apply(&without("cilium-parts"));
    let default = "workload drop (default)".to_owned();
    assert_eq!(
        parts(&net, WORKLOAD, 0, 8472, 4000),
        (0, vec![(default, 20)])
    );
}

/// Echoes that come back, of so many.
fn echoes(net: &Net, space: &str, to: &str, count: u32, interval: &str) -> u64 {
    let script = format!("ping -q -c {count} -i {interval} -W 1 {to}");
    let said = String::from_utf8(net.run(space, &script).stdout).unwrap();
    let words: Vec<_> = said.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("received"));
    words[at.unwrap_or_else(|| panic!("{to}: {said}")) - 1]
        .parse()
        .unwrap()
}

#[test]
fn echoes_come_back_up_to_their_rate() {
    if !installed(&["ping"]) {
        return;
    }
    let Some(net) = Net::new("echo") else { return };
    let (node, peer) = (&net.node, &net.peer);
    for family in 0..2 {
        for plane in PLANES {
            let (to, from) = (plane.node(family), plane.peer(family));
            assert_eq!(echoes(&net, peer, &to, 20, "0.02"), 20, "{to}");
            assert_eq!(echoes(&net, node, &from, 20, "0.02"), 20, "{from}");
        }
        // 20 in a second from one source, and what is above is counted.
        let before = net.counts();
        let back = echoes(&net, peer, &EXTERNAL.node(family), 100, "0.002");
        let over = net.counts().since(&before);
        let rule = ["external over_rate ping", "external over_rate ping6"][family];
        println!("{back} of 100 came back: {over:?}");
        assert_eq!(back + over.of(rule), 100);
        assert!(over.of(rule) > 30, "{over:?}");
    }
    net.apply(&without("ping"));
    assert_eq!(echoes(&net, peer, &STORAGE.node(0), 3, "0.02"), 0);
    assert_eq!(echoes(&net, peer, &STORAGE.node(1), 3, "0.02"), 3);
}
