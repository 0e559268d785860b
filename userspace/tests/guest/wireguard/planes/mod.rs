//! The example policy on a node whose planes are real WireGuard interfaces:
//! what the platform needs works, and an attacker on one plane stays there.

mod attacker;
#[path = "../../../planes/packet.rs"]
#[expect(dead_code, reason = "the reference asks more of it")]
mod packet;
mod replicate;
mod scene;
mod services;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use kldtrace::planes::{change::Change, roots::Roots, saved::Files, state::Lock, status};

use super::super::{
    common::{sh, skipped},
    machine::module,
};
use scene::{NODE, Peer, Scene, within};

/// As it is shipped, to the letter.
const EXAMPLE: &str = include_str!("../../../../../docs/examples/planes.toml");

/// Counts what comes out of the workload plane's tunnel for the planes that
/// nothing there may reach, before routes and sockets see it and behind XDP;
/// and what comes back to the attacker.
const WATCH: &str = "\
add table inet watch
add counter inet watch seen
add chain inet watch in { type filter hook prerouting priority -500; }
add rule inet watch in iifname wg-workload ip daddr 10.250.0.0/15 counter name seen
add rule inet watch in iifname wg-workload ip6 daddr fd00:250::/31 counter name seen
";

/// Keeps a kernel from sending into its tunnel.
const MUTE: &str = "\
add table inet mute
add chain inet mute out { type filter hook output priority 0; }
add rule inet mute out oifname wg-workload drop
";

#[test]
fn the_example_keeps_an_attacker_on_his_plane_and_the_platform_works() {
    if !module("wireguard") {
        return;
    }
    if kernel() < (6, 6) {
        skipped("needs tcx (Linux 6.6)");
        return;
    }
    let scene = Scene::new();
    for space in [NODE.to_owned(), Peer::Attacker.space()] {
        fs::write("/tmp/watch.nft", WATCH).unwrap();
        scene.on(&space, "nft -f /tmp/watch.nft");
    }
    for space in Peer::ALL
        .map(Peer::space)
        .iter()
        .map(|one| &one[..])
        .chain([NODE])
    {
        services::listen(space);
    }
    let sender = attacker::Sender::new();
    let mut stage = Stage(Instant::now());

    // Without planes everything works, and everything can be reached.
    let (failing, answered) = services::failing();
    assert_eq!(failing, [""; 0]);
    let open = attacker::reached().len();
    let outside = attacker::reached_from_outside(&scene).len();
    println!(
        "without planes: {answered} uses answered; the attacker reaches {open} services, {outside} of them from outside as well"
    );
    assert!(open > 100 && outside > 30, "{open} {outside}");
    let forged = attacker::forged();
    let count = forged.len() as u64;
    let before = seen(&scene, NODE);
    // Its kernel would refuse what it has not asked for, with packets of its own.
    let space = Peer::Attacker.space();
    fs::write("/tmp/mute.nft", MUTE).unwrap();
    scene.on(&space, "nft -f /tmp/mute.nft");
    assert_eq!(sender.send(forged.iter().cloned()), count);
    assert_eq!(seen(&scene, NODE) - before, count);
    scene.on(&space, "nft delete table inet mute");
    stage.ends("without planes");

    let folder = tempfile::tempdir().unwrap();
    let bpf = folder.path().join("bpf");
    fs::create_dir(&bpf).unwrap();
    sh(&format!("mount -t bpf bpf {}", bpf.display()));
    let roots = Roots::under(folder.path());
    apply(&roots, folder.path());
    stage.ends("apply");

    let (failing, again) = services::failing();
    assert_eq!(failing, [""; 0], "under the example");
    assert_eq!(again, answered);
    stage.ends("the platform's services");
    replicate::over_the_storage_plane();
    stage.ends("replication of ZFS");

    assert_eq!(attacker::reached(), []);
    assert_eq!(attacker::reached_from_outside(&scene), []);
    stage.ends("the attacker's connections");
    // Each packet that it forged came out of the tunnel, was counted as dropped,
    // and nobody behind saw it or answered.
    let answers = seen(&scene, &Peer::Attacker.space());
    let (before, dropped) = (seen(&scene, NODE), drops(&roots));
    assert_eq!(sender.send(forged.iter().cloned()), count);
    let mut sent = count;
    for plane in [0, 1] {
        let ports = attacker::sweep(plane);
        sent += sender.send(ports);
    }
    assert_eq!(sent, count + 2 * 65_535);
    let now = drops(&roots);
    println!("{sent} packets of the attacker: {now:?}, before {dropped:?}");
    assert_eq!(
        now.values().sum::<u64>() - dropped.values().sum::<u64>(),
        sent
    );
    assert_eq!(seen(&scene, NODE), before);
    stage.ends("the attacker's packets");
    // In the name of a node it could ask for volumes: WireGuard lets nobody.
    assert_eq!(sender.send(attacker::as_a_node().into_iter()), 0);
    // What a router on the way says passes: the kernel knows what it has sent.
    let errors = attacker::path_mtu();
    let errors = sender.send(errors.into_iter());
    assert_eq!(errors, 8);
    assert_eq!(seen(&scene, NODE), before + errors);
    assert_eq!(seen(&scene, &Peer::Attacker.space()), answers);
    assert_eq!(drops(&roots), now);
    // All of that time nothing but the kernel has enforced it.
    sh(&format!("rm -r {0}/planes && umount {0}", bpf.display()));
}

fn apply(roots: &Roots, folder: &Path) {
    let file = folder.join("planes.toml");
    fs::write(&file, EXAMPLE).unwrap();
    let (files, policy) = Files::load(&file).unwrap();
    within(NODE, || {
        let lock = Lock::wait(roots, Duration::from_secs(20)).unwrap();
        let change = Change::apply(roots, lock, files, policy, None).unwrap();
        change.finish().unwrap();
        let report = status::report(roots).unwrap();
        assert_eq!(report.problems, [""; 0]);
    });
}

/// Packets that the workload plane has dropped, by reason or rule.
fn drops(roots: &Roots) -> BTreeMap<String, u64> {
    let report = within(NODE, || status::report(roots).unwrap());
    let plane = report
        .planes
        .iter()
        .find(|one| one.name == "workload")
        .unwrap();
    let reasons = plane.verdicts.iter().filter(|one| one.verdict == "drop");
    let reasons = reasons.map(|one| (one.reason.to_owned(), one.packets));
    let rules = plane.rules.iter().map(|one| {
        let packets = one.dropped.packets + one.over_rate.packets;
        (format!("{:?}", one.rule), packets)
    });
    reasons
        .chain(rules)
        .filter(|(_, packets)| *packets > 0)
        .collect()
}

/// What the counter of [`WATCH`] has seen.
fn seen(scene: &Scene, space: &str) -> u64 {
    let text = scene.on(space, "nft list counter inet watch seen");
    let mut words = text
        .split_whitespace()
        .skip_while(|word| *word != "packets");
    words.nth(1).unwrap().parse().unwrap()
}

/// Says how long the stages take, of the guest's clock.
struct Stage(Instant);

impl Stage {
    fn ends(&mut self, name: &str) {
        println!("{name}: {:.1} s", self.0.elapsed().as_secs_f64());
        self.0 = Instant::now();
    }
}

/// The kernel's release.
fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(['.', '-']).map(|word| word.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}
