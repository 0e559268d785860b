//! Planes on real WireGuard interfaces: each with its services, and an attacker
//! on one of them.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use kldtrace::planes::{change::Change, roots::Roots, saved::Files, state::Lock};
use nix::sched::{CloneFlags, setns};

use super::{
    super::{
        common::{sh, skipped},
        machine::module,
    },
    net::{Pair, Side},
};

const NODE: Side = 0;
const PEER: Side = 1;

/// Interfaces, what their addresses begin with, and their UDP ports.
const TUNNELS: [(&str, &str, u16); 3] = [
    ("wg-mgmt", "10.250.0", 51820),
    ("wg-storage", "10.251.0", 51821),
    ("wg-workload", "10.252.0", 51822),
];

/// What the node listens on: SSH, NFS and an application.
const PORTS: [u16; 3] = [22, 2049, 8080];

const POLICY: &str = r#"
[[plane]]
name = "external"
interfaces = ["u0"]
prefixes = ["10.0.0.0/24"]
mode = "enforce"

[plane.wireguard]
ports = [51820, 51821, 51822]

[[plane]]
name = "management"
interfaces = ["wg-mgmt"]
prefixes = ["10.250.0.0/24"]
mode = "enforce"

[[plane.rule]]
name = "ssh"
verdict = "allow"
protocol = "tcp"
ports = [22]

[[plane]]
name = "storage"
interfaces = ["wg-storage"]
prefixes = ["10.251.0.0/24"]
mode = "enforce"

[[plane.rule]]
name = "nfs"
verdict = "allow"
protocol = "tcp"
ports = [2049]

[[plane]]
name = "workload"
interfaces = ["wg-workload"]
prefixes = ["10.252.0.0/24"]
mode = "enforce"

[[plane.rule]]
name = "application"
verdict = "allow"
protocol = "tcp"
ports = [8080]
"#;

#[test]
fn planes_of_wireguard_keep_an_attacker_on_his_own() {
    if !module("wireguard") {
        return;
    }
    if kernel() < (6, 6) {
        skipped("needs tcx (Linux 6.6)");
        return;
    }
    let pair = Pair::underlay("pl");
    tunnels(&pair);
    within(&pair, NODE, || {
        for port in PORTS {
            let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
            thread::spawn(move || listener.incoming().for_each(drop));
        }
    });
    // Without planes all of the node can be reached, from each tunnel.
    assert_eq!(reached(&pair, |_, _| true), []);

    let folder = tempfile::tempdir().unwrap();
    let bpf = folder.path().join("bpf");
    fs::create_dir(&bpf).unwrap();
    sh(&format!("mount -t bpf bpf {}", bpf.display()));
    let roots = Roots::under(folder.path());
    let file = folder.path().join("planes.toml");
    fs::write(&file, POLICY).unwrap();
    let (files, policy) = Files::load(&file).unwrap();
    within(&pair, NODE, || {
        let lock = Lock::wait(&roots, Duration::from_secs(20)).unwrap();
        let change = Change::apply(&roots, lock, files, policy, None).unwrap();
        change.finish().unwrap();
    });
    // Now each tunnel has its own service at its own address, and no more.
    let differ = reached(&pair, |tunnel, (address, port)| {
        tunnel == address && PORTS[tunnel] == port
    });
    sh(&format!("rm -r {0}/planes && umount {0}", bpf.display()));
    assert_eq!(differ, []);
}

/// Attempts to connect through each tunnel to each address and port of the
/// node that did not go as they should.
fn reached(
    pair: &Pair,
    should: impl Fn(usize, (usize, u16)) -> bool,
) -> Vec<(&'static str, SocketAddr, bool)> {
    let mut differ = Vec::new();
    for (tunnel, (device, own, _)) in TUNNELS.iter().enumerate() {
        for (address, (_, prefix, _)) in TUNNELS.iter().enumerate() {
            let route = format!("{prefix}.1/32 dev {device} src {own}.2");
            pair.on(PEER, &format!("ip route add {route}"));
            for port in PORTS {
                let to: SocketAddr = format!("{prefix}.1:{port}").parse().unwrap();
                let is = within(pair, PEER, || {
                    TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok()
                });
                println!("{device} to {to}: {is}");
                if is != should(tunnel, (address, port)) {
                    differ.push((*device, to, is));
                }
            }
            pair.on(PEER, &format!("ip route del {route}"));
        }
    }
    differ
}

/// Three tunnels between the sides. The peer's go anywhere: nothing but the
/// node keeps it from sending what it wants through each.
fn tunnels(pair: &Pair) {
    for (device, prefix, port) in TUNNELS {
        for side in [NODE, PEER] {
            let (own, other) = (side + 1, 2 - side);
            let allowed = if side == NODE {
                format!("{prefix}.2/32")
            } else {
                "0.0.0.0/0".to_owned()
            };
            let key = &pair.keys[1 - side];
            pair.on(side, &format!("ip link add {device} type wireguard"));
            pair.on(
                side,
                &format!(
                    "wg set {device} private-key /tmp/pl{side}.key listen-port {port} \
                     peer {key} allowed-ips {allowed} endpoint 10.0.0.{other}:{port}"
                ),
            );
            pair.on(side, &format!("ip addr add {prefix}.{own}/24 dev {device}"));
            pair.on(side, &format!("ip link set {device} up"));
        }
    }
}

/// Runs something in a side's namespace, in a thread of its own.
fn within<T: Send>(pair: &Pair, side: Side, run: impl FnOnce() -> T + Send) -> T {
    let namespace = File::open(format!("/run/netns/{}", pair.namespace(side))).unwrap();
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            run()
        });
        thread.join().unwrap()
    })
}

/// The kernel's release.
fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
