//! Several peers of one interface, by the names that people gave them, as the
//! daemon shows them.

use super::{
    super::{
        common::{Daemon, sh},
        machine::module,
        shared::shows,
    },
    net::{PORTS, Pair, UNDER, wait},
};

/// A peer as `wg show dump` has it.
#[derive(PartialEq, Eq)]
struct Dumped {
    key: String,
    last: u64,
    received: u64,
    sent: u64,
}

/// The public columns for all peers of side 0.
fn dump(pair: &Pair) -> Vec<Dumped> {
    let device = pair.device(0);
    let text = pair.on(0, &format!("wg show {device} dump"));
    let peer = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        let number = |at: usize| columns[at].parse().unwrap();
        Dumped {
            key: columns[0].to_owned(),
            last: number(4),
            received: number(5),
            sent: number(6),
        }
    };
    text.lines().skip(1).map(peer).collect()
}

/// One more WireGuard in side 1, in a prefix of its own, as a peer of side 0;
/// its public key.
fn spoke(pair: &Pair, number: u16) -> String {
    let (hub, key, device) = (
        pair.device(0),
        format!("/tmp/nm{number}.key"),
        format!("wgnm1{number}"),
    );
    let port = PORTS[1] + number;
    let public = sh(&format!("umask 077; wg genkey > {key}; wg pubkey < {key}"));
    let public = public.trim();
    pair.on(1, &format!("ip link add {device} type wireguard"));
    pair.on(
        1,
        &format!(
            "wg set {device} private-key {key} listen-port {port} peer {} \
             allowed-ips 10.2.{number}.1/32",
            pair.keys[0]
        ),
    );
    pair.on(1, &format!("ip addr add 10.2.{number}.2/24 dev {device}"));
    pair.on(1, &format!("ip link set {device} up"));
    pair.on(
        0,
        &format!(
            "wg set {hub} peer {public} allowed-ips 10.2.{number}.2/32 endpoint {}:{port}",
            UNDER[1]
        ),
    );
    pair.on(0, &format!("ip addr add 10.2.{number}.1/24 dev {hub}"));
    sh(&format!("rm {key}"));
    public.to_owned()
}

/// The number of the only series of a family with all these labels, without
/// its fraction.
#[track_caller]
fn number(metrics: &str, family: &str, labels: &[String]) -> u64 {
    let lines: Vec<_> = metrics
        .lines()
        .filter(|line| line.starts_with(&format!("{family}{{")))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .collect();
    assert_eq!(lines.len(), 1, "{family} {labels:?}: {lines:?}");
    let number = lines[0].rsplit(' ').next().unwrap();
    number.split('.').next().unwrap().parse().unwrap()
}

#[test]
fn the_daemon_shows_several_peers_by_their_names_and_as_wg_does() {
    if !module("wireguard") {
        return;
    }
    let pair = Pair::underlay("nm");
    pair.interface(0);
    let keys = [1, 2, 3].map(|number| spoke(&pair, number));
    // The third has no name.
    let Some(daemon) = Daemon::start(&format!(
        "[signals]\nenable = [\"wireguard.*\"]\n\
         [planes.interfaces]\nhub = [\"wgnm0\"]\nspokes = [\"wgnm1*\"]\n\
         [wireguard.peers]\nfirst = \"{}\"\nsecond = \"{}\"\nhub = \"{}\"",
        keys[0], keys[1], pair.keys[0]
    )) else {
        return;
    };
    shows(&[
        "wireguard.received_bytes",
        "wireguard.sent_bytes",
        "wireguard.last_handshake",
        "wireguard.handshake_latency",
    ]);
    let names = ["first", "second", &keys[2][..8]];
    for (number, pings) in [(1, 2), (2, 5), (3, 9)] {
        wait("an answer through WireGuard", 60, || {
            let namespace = pair.namespace(0);
            sh(&format!(
                "ip netns exec {namespace} ping -q -c {pings} -i 0.1 -W 3 10.2.{number}.2 \
                 >/dev/null 2>&1 && echo yes || echo no"
            )) == "yes\n"
        });
    }
    // As it is while nothing is sent: keepalives follow 10 s after the last.
    let (mut dumped, mut metrics) = (Vec::new(), String::new());
    wait("a moment of silence", 60, || {
        dumped = dump(&pair);
        let (status, body) = daemon.get("/metrics", "");
        assert_eq!(status, 200);
        metrics = String::from_utf8(body).unwrap();
        dumped == dump(&pair)
    });
    assert_eq!(dumped.len(), 3);
    let label = |name: &str, value: &str| format!("{name}=\"{value}\"");
    let mut sent = Vec::new();
    for (key, name) in keys.iter().zip(names) {
        let one = dumped.iter().find(|peer| peer.key == *key).unwrap();
        let ours = [
            label("interface", "wgnm0"),
            label("plane", "hub"),
            label("peer", name),
        ];
        let of = |what: &str| number(&metrics, &format!("kldtrace_wireguard_{what}"), &ours);
        assert_eq!(of("received_bytes_total"), one.received, "{name}");
        assert_eq!(of("sent_bytes_total"), one.sent, "{name}");
        assert_eq!(of("last_handshake_timestamp_seconds"), one.last, "{name}");
        println!("{name}: {} B received, {} B sent", one.received, one.sent);
        sent.push(one.sent);
    }
    // Three different peers, or this would show nothing.
    assert!(sent[0] < sent[1] && sent[1] < sent[2], "{sent:?}");
    for spoke in 1..=3 {
        let ours = [
            label("interface", &format!("wgnm1{spoke}")),
            label("plane", "spokes"),
            label("peer", "hub"),
            label("role", "responder"),
        ];
        let count = "kldtrace_wireguard_handshake_latency_seconds_count";
        assert_eq!(number(&metrics, count, &ours), 1);
    }
}
