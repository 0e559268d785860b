//! What is shown of planes, against packets that were sent.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use kldtrace::{
    catalogue::{self, Signal, Subject},
    kernel::loader::Options,
    planes::{
        change::Change,
        learn::{Learner, insert},
        roots::Roots,
        saved::Files,
        state::{Lock, State},
    },
    signals::{module::Module as _, planes::Planes},
};
use kldtrace_abi::plane::count::TOLD_PER_SECOND;
use kldtrace_exporters::model::{Event, Family, Field, Value};

use super::{
    kernel::root,
    pair::{Pair, sh},
};

const PACKETS: &str = "kldtrace_plane_packets";
const BYTES: &str = "kldtrace_plane_bytes";
const RULE_PACKETS: &str = "kldtrace_plane_rule_packets";
const ATTACHED: &str = "kldtrace_plane_attached";
const ENFORCING: &str = "kldtrace_plane_enforcing";
const GENERATION: &str = "kldtrace_plane_generation";
const APPLIED: &str = "kldtrace_plane_applied_timestamp_seconds";
const FLOWS: &str = "kldtrace_plane_flows";
const FLOW_CAPACITY: &str = "kldtrace_plane_flow_capacity";
const UNTOLD: &str = "kldtrace_plane_untold_packets";

const POLICY: &str = r#"
[[plane]]
name = "p"
interfaces = ["node"]
prefixes = ["10.99.0.0/24"]
mode = "MODE"

[[plane.rule]]
name = "allowed"
verdict = "allow"
protocol = "udp"
ports = [7001]

[[plane.rule]]
name = "refused"
verdict = "drop"
protocol = "udp"
ports = [7003]

[[plane]]
name = "other"
interfaces = ["nowhere0"]
prefixes = ["10.98.0.0/24"]
"#;

/// More than are told of in a second.
const FLOOD: u64 = 2000;

/// The longest wait for something that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with a policy, and a peer on its plane.
struct Node {
    pair: Pair,
    roots: Roots,
    folder: tempfile::TempDir,
}

impl Node {
    /// `None`, and a line that says so, without root.
    fn new(name: &str, mode: &str) -> Option<Self> {
        if !root() {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let bpf = folder.path().join("bpf");
        std::fs::create_dir(&bpf).unwrap();
        assert!(sh(&format!("mount -t bpf bpf {}", bpf.display())));
        let node = Self {
            pair: Pair::new(name),
            roots: Roots {
                pins: bpf.join("planes"),
                state: folder.path().join("state"),
            },
            folder,
        };
        let peer = &node.pair.peer;
        assert!(sh(&format!("ip -n {peer} addr add 10.98.0.2/24 dev peer")));
        node.apply(mode);
        Some(node)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn apply(&self, mode: &str) -> State {
        let file = self.path().join("planes.toml");
        std::fs::write(&file, POLICY.replace("MODE", mode)).unwrap();
        let (files, policy) = Files::load(&file).unwrap();
        Pair::within(&self.pair.node, || {
            let lock = Lock::wait(&self.roots, PATIENCE).unwrap();
            let change = Change::apply(&self.roots, lock, files, policy, None);
            change.unwrap().finish().unwrap()
        })
    }

    /// Sends so many datagrams from an address of the peer to a port.
    fn send(&self, from: &str, port: u16, count: usize) {
        let from: SocketAddr = from.parse().unwrap();
        let socket = Pair::within(&self.pair.peer, || UdpSocket::bind(from).unwrap());
        let to = SocketAddr::from(([10, 99, 0, 1], port));
        for _ in 0..count {
            socket.send_to(&[7; 72], to).unwrap();
        }
    }

    fn planes(&self) -> Planes {
        let mut planes = Planes::new(self.roots.clone(), 100);
        assert!(planes.loading().is_some());
        planes.attach(&[], &Options::default()).unwrap();
        planes
    }

    fn read(&self, planes: &mut Planes) -> BTreeMap<String, u64> {
        let signals: Vec<_> = signals().collect();
        let families = Pair::within(&self.pair.node, || planes.families(&signals).unwrap());
        families.iter().flat_map(flat).collect()
    }

    fn drain(&self, planes: &mut Planes) -> Vec<Event> {
        let unit = |_| -> Arc<str> { "".into() };
        Pair::within(&self.pair.node, || planes.drain(&unit).unwrap())
    }

    /// Reads until a number is there.
    fn read_until(&self, planes: &mut Planes, name: &str, number: u64) -> BTreeMap<String, u64> {
        let start = Instant::now();
        loop {
            let read = self.read(planes);
            if read.get(name) == Some(&number) {
                return read;
            }
            assert!(start.elapsed() < PATIENCE, "{name}: {read:#?}");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let bpf = self.path().join("bpf");
        sh(&format!("rm -r {0}/planes; umount {0}", bpf.display()));
    }
}

fn signals() -> impl Iterator<Item = &'static Signal> {
    catalogue::signals().filter(|signal| signal.subject == Subject::Planes)
}

/// A series by the name of its family and the values of its labels.
fn key(metric: &str, labels: &str) -> String {
    format!("{metric} {labels}")
}

fn flat(family: &Family) -> Vec<(String, u64)> {
    let series = family.series.iter().map(|series| {
        let labels: Vec<_> = series.labels.iter().map(|(_, value)| &**value).collect();
        let Value::Integer(number) = series.value else {
            panic!("{series:?}");
        };
        (key(&family.name, &labels.join(" ")), number)
    });
    series.collect()
}

fn field(event: &Event, name: &str) -> String {
    let field = event.fields.iter().find(|(known, _)| known == name);
    match field.map(|(_, field)| field) {
        Some(Field::Integer(number)) => number.to_string(),
        Some(Field::Text(text)) => text.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

fn labels(event: &Event) -> String {
    let labels = event.labels.iter().map(|(_, value)| &**value);
    labels.collect::<Vec<_>>().join(" ")
}

#[test]
fn each_packet_is_counted_once_and_its_event_names_it() {
    let Some(node) = Node::new("shown", "enforce") else {
        return;
    };
    let mut planes = node.planes();
    let before = node.read(&mut planes);
    // 72 bytes are 100 with the headers of UDP and IP.
    node.send("10.99.0.2:4001", 7001, 7);
    node.send("10.99.0.2:4002", 7002, 5);
    node.send("10.99.0.2:4003", 7003, 2);
    node.send("10.98.0.2:4004", 7001, 3);
    let read = node.read_until(&mut planes, &key(PACKETS, "p drop cross"), 3);
    let grown = |name: &str| read[name] - before.get(name).copied().unwrap_or(0);
    for (metric, labels, count) in [
        (PACKETS, "p pass rule", 7),
        (PACKETS, "p drop default", 5),
        (PACKETS, "p drop rule", 2),
        (PACKETS, "p drop cross", 3),
        (PACKETS, "p would_drop default", 0),
        (PACKETS, "p pass established", 0),
        (BYTES, "p drop", 1000),
        (RULE_PACKETS, "p allowed pass", 7),
        (RULE_PACKETS, "p refused drop", 2),
        (RULE_PACKETS, "p (default) drop", 5),
    ] {
        let name = key(metric, labels);
        assert_eq!(grown(&name), count, "{name}: {read:#?}");
    }
    for (metric, labels, number) in [
        (ATTACHED, "p node native", 1),
        (ENFORCING, "p", 1),
        (ENFORCING, "other", 0),
        (GENERATION, "", 1),
        (FLOW_CAPACITY, "ipv4", 131_072),
        (UNTOLD, "", 0),
    ] {
        let name = key(metric, labels);
        assert_eq!(read[&name], number, "{name}");
    }
    let applied = State::load(&node.roots).unwrap().current.unwrap().by.at;
    assert_eq!(read[&key(APPLIED, "")], applied);

    let events = node.drain(&mut planes);
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let of = [
                "source",
                "source_port",
                "destination",
                "destination_port",
                "bytes",
            ];
            let of = of.map(|name| field(event, name)).join(" ");
            format!("{}: {of}", labels(event))
        })
        .collect();
    let mut expected = vec!["p node (default) drop default: 10.99.0.2 4002 10.99.0.1 7002 100"; 5];
    expected.extend(["p node refused drop rule: 10.99.0.2 4003 10.99.0.1 7003 100"; 2]);
    expected.extend(["p node  drop cross: 10.98.0.2 4004 10.99.0.1 7001 100"; 3]);
    assert_eq!(told, expected);
    for event in &events {
        assert!(catalogue::told(event).is_some(), "{event:?}");
    }
    assert_eq!(
        events[0].message,
        "udp 10.99.0.2:4002 > 10.99.0.1:7002 dropped on node (p) by (default): default"
    );
    // What leaves makes a flow, once.
    let flows = key(FLOWS, "ipv4 recent");
    let known = before[&flows];
    Pair::within(&node.pair.node, || {
        for port in [9001, 9002, 9003, 9001] {
            let socket = UdpSocket::bind(("10.99.0.1", port)).unwrap();
            socket.send_to(&[7; 72], ("10.99.0.2", 9)).unwrap();
        }
    });
    node.read_until(&mut planes, &flows, known + 3);
    // An interface that another takes the programs off is open.
    let pins = node.roots.pins.join("links");
    assert!(sh(&format!("rm {}/*-in", pins.display())));
    node.read_until(&mut planes, &key(ATTACHED, "p node none"), 0);
}

#[test]
fn what_is_not_told_is_counted_and_one_alone_listens() {
    let Some(node) = Node::new("flood", "enforce") else {
        return;
    };
    let (mut first, mut second) = (node.planes(), node.planes());
    assert!(node.drain(&mut first).is_empty());
    node.send("10.99.0.2:4001", 7002, FLOOD as usize);
    let read = node.read_until(&mut first, &key(PACKETS, "p drop default"), FLOOD);
    assert!(node.drain(&mut second).is_empty(), "another listens");
    let events = node.drain(&mut first);
    let told = events.len() as u64;
    assert!(told >= TOLD_PER_SECOND, "{told}");
    assert_eq!(told + read[&key(UNTOLD, "")], FLOOD);
    let Some((_, Field::Float(sampled))) = events[0].fields.last() else {
        panic!("{events:?}");
    };
    let share = told as f64 / FLOOD as f64;
    assert!((sampled - share).abs() < 1e-9, "{sampled} {share}");
    // Whoever waited goes on where the other has ended.
    drop(first);
    assert!(node.drain(&mut second).is_empty());
    let start = Instant::now();
    loop {
        node.send("10.99.0.2:4001", 7009, 1);
        let events = node.drain(&mut second);
        if let Some(event) = events.first() {
            assert_eq!(field(event, "destination_port"), "7009");
            break;
        }
        // Its CPU has told enough in this second.
        assert!(start.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn what_audit_saw_passes_once_it_is_learned() {
    let Some(node) = Node::new("learn", "audit") else {
        return;
    };
    let mut planes = node.planes();
    node.drain(&mut planes);
    node.send("10.99.0.2:4001", 7002, 5);
    node.send("10.98.0.2:4004", 7001, 3);
    node.send("10.99.0.2:4003", 7003, 2);
    node.read_until(&mut planes, &key(PACKETS, "p would_drop rule"), 2);
    let events = node.drain(&mut planes);
    let text = POLICY.replace("MODE", "audit");
    let file = node.path().join("planes.toml");
    let (_, policy) = Files::load(&file).unwrap();
    let mut learner = Learner::new(&policy);
    for event in &events {
        learner.event(event, 1).unwrap();
        assert!(learner.event(event, 2).is_err(), "another policy");
    }
    let proposal = learner.propose();
    assert_eq!((proposal.seen, proposal.rules.len()), (10, 2));
    let files = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let proposed = insert(&text, &policy, &files, &proposal).unwrap();

    std::fs::write(&file, proposed.replace("\"audit\"", "\"enforce\"")).unwrap();
    let (files, policy) = Files::load(&file).unwrap();
    Pair::within(&node.pair.node, || {
        let lock = Lock::wait(&node.roots, PATIENCE).unwrap();
        let change = Change::apply(&node.roots, lock, files, policy, None);
        change.unwrap().finish().unwrap()
    });
    node.send("10.99.0.2:4001", 7002, 5);
    node.send("10.98.0.2:4004", 7001, 3);
    node.send("10.99.0.2:4003", 7003, 2);
    let read = node.read_until(&mut planes, &key(PACKETS, "p drop rule"), 2);
    assert_eq!(read[&key(RULE_PACKETS, "p learned-udp-7002 pass")], 5);
    assert_eq!(
        read[&key(RULE_PACKETS, "p other > p: learned-udp-7001 pass")],
        3
    );
    assert_eq!(
        read[&key(PACKETS, "p drop cross")] + read[&key(PACKETS, "p drop default")],
        0
    );
}
