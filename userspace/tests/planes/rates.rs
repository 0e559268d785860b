//! Rates by source: what each may send, and what becomes of the buckets of
//! sources that are too many.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, OwnedFd},
    thread,
};

use aya::{maps::PerCpuArray, programs::Xdp};
use fastrand::Rng;
use kldtrace::planes::{
    compile,
    host::Host,
    install::{Programs, write},
};
use kldtrace_abi::{
    loss::Loss,
    plane::{Action, Facts, Link, Outcome, Reason, count::rule_counters, parse, rate::SETS},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};

use super::{
    agree::read,
    kernel::{load, root},
    packet::Packet,
    run,
    spoof::{STEP, spoofing},
};

const HEAD: &str = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n";
const SECOND: u64 = 1_000_000_000;
/// Sources that have room together: four in each set.
const ROOM: u32 = 4 * SETS;

fn rule(ports: &str, rate: &str) -> String {
    format!(
        "[[plane.rule]]\nname = \"r\"\nverdict = \"allow\"\nprotocol = [\"tcp\", \"udp\"]\nports = [{ports}]\n{rate}"
    )
}

fn host(policy: &str) -> Host {
    Host::new(compile::image(&read(policy), 1).unwrap().cells)
}

fn udp(source: IpAddr, port: u16) -> Packet {
    let node = if source.is_ipv4() {
        IpAddr::from([10, 0, 0, 1])
    } else {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])
    };
    Packet {
        protocol: 17,
        link: Link::Ethernet,
        ..Packet::tcp(source, node, port)
    }
}

fn facts(packet: &Packet) -> Facts {
    parse(&packet.bytes()[..], packet.link)
}

/// A token bucket as books have it: full at first, and filled as time goes by.
struct Tokens {
    each: u64,
    most: u64,
    left: HashMap<String, (u64, u64)>,
}

impl Tokens {
    fn new(each: u64, burst: u64) -> Self {
        Self {
            each,
            most: burst * each,
            left: HashMap::new(),
        }
    }

    fn take(&mut self, source: &str, now: u64) -> bool {
        let (left, then) = self
            .left
            .entry(source.to_owned())
            .or_insert((self.most, now));
        *left = self.most.min(*left + (now - *then));
        *then = now;
        let enough = *left >= self.each;
        *left -= if enough { self.each } else { 0 };
        enough
    }
}

/// Every source gets what the plane, its rate of SYNs and the rule let it have,
/// in this order, to the packet: whatever others send, and whether the verdict is
/// remembered or not.
#[test]
fn each_source_has_its_share() {
    let plane = "rate = \"20/s\"\nburst = 5\nsyn_rate = \"4/s\"\nsyn_burst = 2\n";
    let rules =
        rule("53", "rate = \"10/s\"\nburst = 3\n") + &rule("22", "").replace("\"r\"", "\"s\"");
    let mut host = host(&format!("{HEAD}{plane}{rules}"));
    let (mut all, mut syn) = (Tokens::new(SECOND / 20, 5), Tokens::new(SECOND / 4, 2));
    let mut of_rule = Tokens::new(SECOND / 10, 3);
    let mut rng = Rng::with_seed(17);
    let mut found = HashMap::new();
    for _ in 0..200_000 {
        host.now += rng.u64(..2_000_000);
        // Of IPv6 all of a /64 are one.
        let near = rng.u16(..40);
        let (source, name): (IpAddr, _) = if rng.bool() {
            let source = Ipv4Addr::from([10, 0, 1, near as u8]);
            (source.into(), source.to_string())
        } else {
            let source = Ipv6Addr::new(0xfd00, 0, 0, near, 0, 0, 0, rng.u16(..));
            (source.into(), near.to_string())
        };
        let mut packet = udp(source, [22, 53, 99][rng.usize(..3)]);
        packet.protocol = if rng.bool() { 6 } else { 17 };
        let expected = if !all.take(&name, host.now)
            || packet.protocol == 6 && !syn.take(&name, host.now)
            || packet.destination_port == 53 && !of_rule.take(&name, host.now)
        {
            Reason::Rate
        } else if packet.destination_port == 99 {
            Reason::Default
        } else {
            Reason::Rule
        };
        let outcome = host.judge(1, &facts(&packet));
        assert_eq!(outcome.reason, expected, "{packet:?}");
        *found.entry(outcome.reason).or_insert(0) += 1;
        if rng.u8(..50) == 0 {
            host.memos.clear();
        }
    }
    assert!(
        found.len() == 3 && found.values().all(|many| *many > 10_000),
        "{found:?}"
    );
    assert_eq!(host.crowded, 0);
}

/// In audit mode what is over a rate passes, and is said to.
#[test]
fn what_is_over_a_rate_would_be_dropped_in_audit_mode() {
    let policy = HEAD.replace("enforce", "audit") + &rule("53", "rate = \"1/m\"\nburst = 2\n");
    let mut host = host(&policy);
    let packet = facts(&udp([10, 0, 0, 9].into(), 53));
    let found = [0; 4].map(|_| {
        let Outcome { action, reason, .. } = host.judge(1, &packet);
        (action, reason)
    });
    let (pass, over) = (
        (Action::Pass, Reason::Rule),
        (Action::WouldDrop, Reason::Rate),
    );
    assert_eq!(found, [pass, pass, over, over]);
}

/// A flood from anywhere takes room from those that owe least: who has sent too
/// much is kept out all the same. What gives way before its time is counted, and
/// what was over anyway is not.
#[test]
fn who_owes_most_keeps_its_bucket() {
    let mut host = host(&format!(
        "{HEAD}{}",
        rule("53", "rate = \"1/s\"\nburst = 9\n")
    ));
    let heavy: Vec<_> = (0..100)
        .map(|last| facts(&udp([10, 9, 0, last].into(), 53)))
        .collect();
    for _ in 0..9 {
        for packet in &heavy {
            assert_eq!(host.judge(1, packet).reason, Reason::Rule);
        }
    }
    let flood = |host: &mut Host, many| {
        for number in 0..many {
            let source = Ipv4Addr::from_bits(0x2000_0000 + number);
            assert_eq!(
                host.judge(1, &facts(&udp(source.into(), 53))).reason,
                Reason::Rule
            );
        }
    };
    flood(&mut host, ROOM + 50_000);
    // So many have no room at least, and by chance some more.
    assert!(
        (50_100..100_000).contains(&host.crowded),
        "{}",
        host.crowded
    );
    for packet in &heavy {
        assert_eq!(host.judge(1, packet).reason, Reason::Rate);
    }
    let crowded = std::mem::take(&mut host.crowded);
    host.now += 10 * SECOND;
    flood(&mut host, 1_000);
    assert_eq!(host.crowded, 0, "after {crowded}");
}

/// The program of a plane, and what is lost there.
struct Limited {
    programs: Programs,
    ingress: OwnedFd,
    counter: u32,
}

impl Limited {
    fn new(policy: &str) -> Self {
        let compiled = compile::image(&read(policy), 1).unwrap();
        let mut programs = load(1, Link::Ethernet).programs;
        programs.swap(&write(&compiled.cells).unwrap()).unwrap();
        let program = programs.ebpf.program_mut("plane_ingress").unwrap();
        let ingress: &mut Xdp = program.try_into().unwrap();
        let ingress = ingress.fd().unwrap().as_fd().try_clone_to_owned().unwrap();
        let counter = compiled.rules[0].counter;
        Self {
            programs,
            ingress,
            counter,
        }
    }

    /// What passed by the rule, what was over its rate, and the buckets that gave
    /// way.
    fn counted(&mut self) -> (u64, u64, u64) {
        let counts = self.programs.counts().unwrap();
        let [passed, _, _, over] = std::array::from_fn(|kind| {
            let number = rule_counters(self.counter).start + kind as u32;
            counts.read(number).unwrap().packets
        });
        let losses = self.programs.ebpf.map("LOSSES").unwrap();
        let losses = PerCpuArray::<_, u64>::try_from(losses).unwrap();
        let crowded = losses.get(&(Loss::PlaneRate as u32), 0).unwrap();
        (passed, over, crowded.iter().sum())
    }
}

/// The same number of buckets gives way in the kernel as here, where each source
/// is another; and none is said to have sent too much.
#[test]
fn a_flood_finds_as_much_room_in_the_kernel() {
    if !root() {
        return;
    }
    let policy = format!("{HEAD}{}", rule("53", "rate = \"1/h\"\n"));
    let mut limited = Limited::new(&policy);
    let packet = udp([10, 0, 0, 9].into(), 53);
    let many = 300_000;
    let flood = spoofing(&limited.ingress).unwrap();
    run::xdp(&flood, &packet.bytes(), many).unwrap();
    let mut host = host(&policy);
    let mut source = u32::from_le_bytes([10, 0, 0, 9]);
    for _ in 0..many {
        source = source.wrapping_add_signed(STEP);
        let packet = udp(source.to_le_bytes().into(), 53);
        assert_eq!(host.judge(1, &facts(&packet)).reason, Reason::Rule);
        host.now += 1;
    }
    assert!(host.crowded > u64::from(many - ROOM));
    assert_eq!(limited.counted(), (many.into(), 0, host.crowded));
}

/// Two CPUs take from one bucket at once: what both take at the same moment counts
/// once, and no more than that is given away.
#[test]
fn one_source_on_two_cpus_has_one_share() {
    if !root() {
        return;
    }
    if thread::available_parallelism().unwrap().get() < 2 {
        println!("skipped: needs two CPUs");
        return;
    }
    let burst = 1_000_000;
    let rate = format!("rate = \"1/h\"\nburst = {burst}\n");
    let mut limited = Limited::new(&format!("{HEAD}{}", rule("53", &rate)));
    let packet = udp([10, 0, 0, 9].into(), 53).bytes();
    let runs = 3_000_000;
    thread::scope(|scope| {
        for cpu in 0..2 {
            let (packet, ingress) = (&packet, &limited.ingress);
            scope.spawn(move || {
                let mut cpus = CpuSet::new();
                cpus.set(cpu).unwrap();
                sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
                run::xdp(ingress, packet, runs).unwrap();
            });
        }
    });
    let (passed, over, _) = limited.counted();
    println!("{passed} of {burst} passed");
    assert_eq!(passed + over, u64::from(2 * runs));
    assert!((burst..2 * burst).contains(&passed));
}
