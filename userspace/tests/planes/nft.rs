//! What `planes check` says about nftables, against what the kernel does with
//! real packets under the same rules.

use std::{
    collections::HashSet,
    fmt::Write as _,
    io::{ErrorKind, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    process::{Command, Stdio},
    time::Duration,
};

use fastrand::Rng;
use kldtrace::planes::nft::{Bound, Fate, Node, Packet, Ruleset, follow, list};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    kernel::root,
    pair::{Pair, sh},
};

/// What both chains let pass first: it says that all before it has arrived.
const LAST: u16 = 9999;
const PORTS: [u16; 4] = [7001, 7002, 7003, 8000];
const SOURCES: [&str; 2] = ["10.99.0.2", "10.99.0.3"];
const DESTINATIONS: [&str; 2] = ["10.99.0.1", "10.99.0.10"];

/// Comparisons of addresses.
const ADDRESSES: [&str; 13] = [
    "ip saddr 10.99.0.2",
    "ip saddr != 10.99.0.2",
    "ip saddr { 10.99.0.3, 10.1.0.0/16 }",
    "ip saddr != { 10.99.0.3, 10.1.0.0/16 }",
    "ip saddr 10.99.0.0/31",
    "ip saddr @some",
    "ip daddr 10.99.0.1-10.99.0.4",
    "ip daddr != 10.99.0.10",
    "meta protocol ip",
    "meta nfproto ipv4",
    "ip6 saddr != ::1",
    "ip frag-off & 0x1fff != 0",
    "ip saddr . ip daddr { 10.99.0.2 . 10.99.0.0/29, 10.99.0.3 . 10.99.0.10 }",
];

/// Comparisons of what packets carry.
const SERVICES: [&str; 15] = [
    "udp dport 7001",
    "udp dport { 7002, 7900-8100 }",
    "udp dport != 7001",
    "udp dport >= 7002",
    "udp dport < 7003",
    "udp dport @ports",
    "udp sport 40000",
    "udp sport < 1024",
    "th dport 7002",
    "tcp dport 7001",
    "tcp dport != 7001",
    "tcp flags syn",
    "icmp type echo-request",
    "meta l4proto udp",
    "meta l4proto { tcp, icmp }",
];

/// Others.
const OTHERS: [&str; 7] = [
    "iifname \"node\"",
    "iifname \"no*\"",
    "iifname != { \"eth0\", \"wg-*\" }",
    "iif \"node\"",
    "fib daddr type local",
    "fib daddr type != local",
    "limit rate over 1000000/second burst 1000 packets",
];

/// Comparisons about which nothing can be told from here.
const UNKNOWN: [&str; 4] = [
    "meta mark 0x0",
    "ip ttl < 3",
    "udp length > 100",
    "meta pkttype broadcast",
];

/// Verdicts, and what comes before them.
const VERDICTS: [&str; 13] = [
    "accept",
    "accept",
    "counter accept",
    "drop",
    "drop",
    "log prefix \"x\" drop",
    "reject",
    "return",
    "continue",
    "counter",
    "meta mark set 0x1",
    "udp dport vmap { 7001 : drop, 7002 : return, 8000 : accept }",
    "udp dport vmap @verdicts",
];

/// Some rules. `jumps`: chains that may be jumped to.
fn rules(rng: &mut Rng, guess: bool, jumps: &[&str]) -> String {
    let mut text = String::new();
    for _ in 0..rng.usize(1..6) {
        let lists: [&[&str]; 4] = [&ADDRESSES, &SERVICES, &OTHERS, &UNKNOWN];
        for list in &lists[..if guess { 4 } else { 3 }] {
            if rng.u8(0..5) < 2 {
                text += rng.choice(*list).unwrap();
                text += " ";
            }
        }
        match rng.choice(jumps).filter(|_| rng.u8(0..3) == 0) {
            Some(target) => {
                let word = rng.choice(["jump", "goto"]).unwrap();
                let _ = write!(text, "{word} {target}");
            }
            None => text += rng.choice(VERDICTS).unwrap(),
        }
        text += "\n";
    }
    text
}

fn table(rng: &mut Rng, guess: bool) -> String {
    let policy = rng.choice(["accept", "drop"]).unwrap();
    let state = rng.choice([
        "ct state established,related accept",
        "ct state new counter",
        "ct state { new, untracked } continue",
        "ct state vmap { invalid : drop, new : jump second }",
    ]);
    format!(
        "table inet t {{
            set some {{ type ipv4_addr; flags interval; elements = {{ 10.99.0.2, 10.2.0.0/16 }}; }}
            set ports {{ type inet_service; elements = {{ 7003, 8000 }}; }}
            map verdicts {{ type inet_service : verdict; elements = {{ 7002 : drop, 8000 : accept }}; }}
            chain second {{\n{}}}
            chain first {{\n{}}}
            chain raw {{
                type filter hook prerouting priority raw; policy accept;
                udp dport {LAST} accept
                {}}}
            chain input {{
                type filter hook input priority filter; policy {policy};
                udp dport {LAST} accept
                {}
                {}}}
        }}",
        rules(rng, guess, &[]),
        rules(rng, guess, &["second"]),
        rules(rng, guess, &["first"]),
        state.unwrap(),
        rules(rng, guess, &["first", "second"]),
    )
}

/// Whether the kernel takes the rules.
fn load(text: &str) -> Result<(), String> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let mut stdin = nft.stdin.take().unwrap();
    let text = format!("flush ruleset\n{text}");
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = nft.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(said)
}

/// The ends of all packets of the test.
struct Ends {
    senders: Vec<UdpSocket>,
    receivers: Vec<UdpSocket>,
    last: UdpSocket,
}

impl Ends {
    fn new(pair: &Pair) -> Self {
        let bind = |space: &str, address: &str, port: u16| {
            let address = SocketAddr::new(address.parse().unwrap(), port);
            Pair::within(space, || UdpSocket::bind(address).unwrap())
        };
        let receive = |port: &u16| {
            let socket = bind(&pair.node, "0.0.0.0", *port);
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let last = bind(&pair.node, "0.0.0.0", LAST);
        last.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            senders: SOURCES
                .iter()
                .map(|source| bind(&pair.peer, source, Packet::SOURCE_PORT))
                .collect(),
            receivers: PORTS.iter().map(receive).collect(),
            last,
        }
    }

    /// Sends all, and says which arrive.
    fn arrive(&self, packets: &[(usize, SocketAddr)]) -> HashSet<usize> {
        for (number, (sender, to)) in packets.iter().enumerate() {
            let text = number.to_string();
            self.senders[*sender].send_to(text.as_bytes(), to).unwrap();
        }
        let end = SocketAddr::new(DESTINATIONS[0].parse().unwrap(), LAST);
        self.senders[0].send_to(b"last", end).unwrap();
        self.last.recv(&mut [0; 9]).expect("what always passes");
        let mut arrived = HashSet::new();
        for socket in &self.receivers {
            let mut bytes = [0; 9];
            loop {
                match socket.recv(&mut bytes) {
                    Ok(length) => {
                        let text = str::from_utf8(&bytes[..length]).unwrap();
                        arrived.insert(text.parse().unwrap());
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        arrived
    }
}

fn ready(name: &str) -> Option<Pair> {
    if !root() {
        return None;
    }
    if !sh("command -v nft") {
        println!("skipped: nft is not installed");
        return None;
    }
    let pair = Pair::new(name);
    if let Err(error) = Pair::within(&pair.node, || load("")) {
        println!("skipped: no nftables in this kernel: {error}");
        return None;
    }
    Some(pair)
}

#[test]
fn the_kernel_does_what_is_said_of_random_rules() {
    let Some(pair) = ready("nftrandom") else {
        return;
    };
    let (node, peer) = (&pair.node, &pair.peer);
    assert!(sh(&format!(
        "ip -n {node} addr add 10.99.0.10/24 dev node && ip -n {peer} addr add 10.99.0.3/24 dev peer"
    )));
    // Packets of one CPU arrive in their order.
    let mut cpus = CpuSet::new();
    cpus.set(0).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
    let ends = Ends::new(&pair);
    let here = Pair::within(node, || Node::here().unwrap());
    let mut counts = [0; 3];
    let mut loaded = 0;
    for seed in 0..300 {
        let mut rng = Rng::with_seed(seed);
        let guess = seed % 3 == 0;
        let text = table(&mut rng, guess);
        // A rule for two protocols at once is none.
        let Some(printed) = Pair::within(node, || {
            load(&text).ok()?;
            Some(list().unwrap())
        }) else {
            continue;
        };
        loaded += 1;
        let ruleset = Ruleset::read(&printed).unwrap();
        let mut packets = Vec::new();
        for source in 0..SOURCES.len() {
            for to in DESTINATIONS {
                let all = PORTS.map(|port| (source, SocketAddr::new(to.parse().unwrap(), port)));
                packets.extend(all);
            }
        }
        let arrived = ends.arrive(&packets);
        for (number, (source, to)) in packets.iter().enumerate() {
            let packet = Packet {
                arrives: "node".to_owned(),
                bound: Bound::Here,
                source: SOURCES[*source].parse::<IpAddr>().unwrap(),
                destination: to.ip(),
                protocol: 17,
                port: to.port(),
                kind: 0,
            };
            let fate = follow(&ruleset, &here, &packet);
            let passed = arrived.contains(&number);
            let case = || format!("seed {seed}: {packet:?}: {fate:?}, arrived: {passed}\n{text}");
            match &fate {
                Fate::Passes => assert!(passed, "{}", case()),
                Fate::Dropped(_) => assert!(!passed, "{}", case()),
                Fate::Unknown(_) => assert!(guess, "{}", case()),
            }
            counts[match fate {
                Fate::Passes => 0,
                Fate::Dropped(_) => 1,
                Fate::Unknown(_) => 2,
            }] += 1;
        }
    }
    println!("{loaded} rulesets; passed, dropped, unknown: {counts:?}");
    assert!(
        loaded > 50 && counts.iter().all(|count| *count > 100),
        "{loaded}: {counts:?}"
    );
}

#[test]
fn a_rule_that_nftables_overrules_is_named_with_its_line() {
    let Some(pair) = ready("nftcheck") else {
        return;
    };
    let rules = r#"
        table inet filter {
            set blocked { type ipv4_addr; flags interval; elements = { 10.99.0.128/25 }; }
            chain input {
                type filter hook input priority filter; policy drop;
                ct state established,related accept
                ip saddr @blocked drop
                iifname "node" tcp dport 7001 accept
                udp dport 7003 meta mark 0x7 accept
            }
        }"#;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("planes.toml");
    let policy = "[floor]
plane = \"p\"
ports = [7001]

[[plane]]
name = \"p\"
interfaces = [\"node\"]
prefixes = [\"10.99.0.0/24\"]

[[plane.rule]]
name = \"web\"
verdict = \"allow\"
protocol = \"udp\"
ports = [7002]

[[plane.rule]]
name = \"marked\"
verdict = \"allow\"
protocol = \"udp\"
ports = [7003]
sources = [\"10.99.0.0/25\"]
";
    std::fs::write(&file, policy).unwrap();
    let (code, said) = Pair::within(&pair.node, || {
        load(rules).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_kldtrace"))
            .args(["planes", "check"])
            .arg(&file)
            .env_remove("SSH_CONNECTION")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        // It lists the interfaces of whichever namespace /sys was mounted in.
        let said = said
            .split_inclusive('\n')
            .filter(|line| !line.contains("has no interface here"))
            .collect::<String>();
        (output.status.code(), said)
    });
    let file = file.display();
    let handle = |text: &str| {
        let listed = Pair::within(&pair.node, || {
            let output = Command::new("nft").args(["-a", "list", "ruleset"]).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        });
        let line = listed.lines().find(|line| line.contains(text)).unwrap();
        line.rsplit(' ').next().unwrap().to_owned()
    };
    let expected = format!(
        "{file}:1: warning: nftables drops a part of what rule \"floor\" allows, such as \
         tcp 10.99.0.129:40000 > 10.99.0.1:7001 on node: chain inet filter input, handle {}\n\
         {file}:10: warning: nftables drops what rule \"web\" allows, such as \
         udp 10.99.0.2:40000 > 10.99.0.1:7002 on node: chain inet filter input, its policy\n\
         {file}:16: warning: cannot tell whether nftables lets pass what this rule allows: \
         meta mark in chain inet filter input, handle {}\n\
         {file}: ok: 1 planes, 2 rules, 0 between planes\n",
        handle("@blocked drop"),
        handle("meta mark")
    );
    assert_eq!(said, expected);
    assert_eq!(code, Some(0), "a warning is no error");
}
