//! The same verdicts from the program in the kernel.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
};

use aya::{
    maps::{MapData, PerCpuArray, RingBuf},
    programs::{ProgramFd, ProgramInfo, SchedClassifier, Xdp},
};
use fastrand::Rng;
use kldtrace::planes::{
    compile,
    host::Host,
    install::{Counts, Programs, write},
    status::ACTIONS,
};
use kldtrace_abi::{
    loss::Loss,
    plane::{
        Action, Link, Outcome, Reason,
        count::{Count, Told, counter, counters, rule_counters},
        parse,
    },
};

use super::{agree::read, corpus, packet::Packet, random, run};

/// The programs of one plane, with their packets' way back.
pub struct Loaded {
    pub programs: Programs,
    told: RingBuf<MapData>,
    fd: ProgramFd,
}

pub fn load(plane: u8, link: Link) -> Loaded {
    load_telling(plane, link, true)
}

/// The same; `all`: every packet is told of, else drops.
fn load_telling(plane: u8, link: Link, all: bool) -> Loaded {
    let mut programs = Programs::load(plane, link, 1000, all).unwrap();
    let told = programs.ebpf.take_map("PLANE_TOLD").unwrap();
    let program: &mut Xdp = programs
        .ebpf
        .program_mut("plane_ingress")
        .unwrap()
        .try_into()
        .unwrap();
    program.load().unwrap();
    soon_verified("in", &program.info().unwrap());
    let fd = program.fd().unwrap().try_clone().unwrap();
    Loaded {
        programs,
        told: told.try_into().unwrap(),
        fd,
    }
}

/// The verifier takes most of the time of a first `apply`: about a second for
/// half a million instructions. It looks at a tenth of that on Linux 6.18.
fn soon_verified(direction: &str, info: &ProgramInfo) {
    let looked_at = info.verified_instruction_count();
    println!(
        "{direction}: {looked_at:?} instructions looked at by the verifier, {} bytes",
        info.size_jitted()
    );
    assert!(looked_at.is_none_or(|number| number < 150_000));
}

impl Loaded {
    /// The verdict on a packet.
    pub fn judge(&mut self, packet: &[u8]) -> Outcome {
        let (action, _) = run::xdp(&self.fd, packet, 1).unwrap();
        let told = next(&mut self.told);
        // include/uapi/linux/bpf.h: XDP_DROP 1, XDP_PASS 2.
        let expected = if told.outcome.action == Action::Drop {
            1
        } else {
            2
        };
        assert_eq!(action, expected);
        told.outcome
    }
}

/// What the program tells of the last packet.
fn next(ring: &mut RingBuf<MapData>) -> Told {
    let item = ring.next().expect("every packet is told of");
    assert_eq!(item.len(), size_of::<Told>());
    // SAFETY: the program wrote one.
    unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) }
}

pub fn root() -> bool {
    // SAFETY: takes and returns a number.
    let root = unsafe { libc::geteuid() } == 0;
    if !root {
        println!("skipped: loading programs needs root");
    }
    root
}

#[test]
fn the_corpus_gets_its_verdicts_in_the_kernel() {
    if !root() {
        return;
    }
    let (policy, compiled, cases) = corpus::corpus();
    let image = write(&compiled.cells).unwrap();
    let mut wrong = Vec::new();
    for (number, plane) in (1..).zip(&policy.planes) {
        let mut loaded = load(number, corpus::link(&plane.name));
        loaded.programs.swap(&image).unwrap();
        let here = cases.iter().filter(|case| case.plane == number);
        for case in here.filter(|case| case.bytes.len() >= run::LEAST) {
            let found = corpus::written(loaded.judge(&case.bytes), &compiled);
            if found != case.verdict {
                wrong.push(format!("{}: {found}, not {}", case.name, case.verdict));
            }
        }
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n"));
}

/// Also damaged ones: each packet has some of its bytes changed or cut off.
#[test]
fn random_packets_get_the_same_verdict_in_the_kernel_and_here() {
    if !root() {
        return;
    }
    let mut rng = Rng::with_seed(7);
    for link in [Link::Bare, Link::Ethernet] {
        let mut loaded = load(1, link);
        let counts = loaded.programs.counts().unwrap();
        let mut counted: HashMap<u32, Count> = HashMap::new();
        for generation in 1..=20 {
            let policy = read(&random::policy(&mut rng, 20));
            let compiled = compile::image(&policy, generation).unwrap();
            let image = write(&compiled.cells).unwrap();
            loaded.programs.swap(&image).unwrap();
            let mut host = Host::new(compiled.cells);
            for _ in 0..1_000 {
                let mut packet = random::packet(&mut rng);
                packet.link = link;
                let mut bytes = packet.bytes();
                if rng.bool() {
                    for _ in 0..rng.usize(1..4) {
                        let place = rng.usize(..bytes.len());
                        bytes[place] = rng.u8(..);
                    }
                    bytes.truncate(rng.usize(run::LEAST..=bytes.len() + 20));
                }
                let facts = parse(&bytes[..], link);
                // Twice: the second time by what was kept.
                for _ in 0..2 {
                    let expected = host.judge(1, &facts);
                    assert_eq!(loaded.judge(&bytes), expected, "{bytes:x?}");
                    let count = counted.entry(counter(1, &expected)).or_default();
                    count.packets += 1;
                    count.bytes += u64::from(facts.length);
                }
            }
        }
        for number in 0..counters(1000) {
            let expected = counted.get(&number).copied().unwrap_or_default();
            assert_eq!(counts.read(number).unwrap(), expected, "counter {number}");
        }
        all_at_once(&counts, &counted);
    }
}

/// All counters read at once are what was counted, by planes and by rules.
fn all_at_once(counts: &Counts, counted: &HashMap<u32, Count>) {
    let expected = |number: u32| counted.get(&number).copied().unwrap_or_default();
    let all = counts.all().unwrap();
    for plane in 0..16 {
        for reason in Reason::ALL {
            for (action, _) in ACTIONS {
                let outcome = Outcome {
                    action,
                    reason,
                    ..Outcome::default()
                };
                let count = all.plane(plane, reason, action).unwrap();
                assert_eq!(count, expected(counter(plane, &outcome)));
            }
        }
    }
    for place in 0..=1000 {
        let expected: Vec<_> = rule_counters(place).map(expected).collect();
        assert_eq!(all.rule(place).unwrap().to_vec(), expected, "rule {place}");
    }
    assert!(all.rule(1001).is_err());
}

/// A flood of drops is told of so often, and the rest are counted as lost.
#[test]
fn drops_that_are_not_told_are_counted() {
    const DROPS: u64 = 500;
    if !root() {
        return;
    }
    let (_, compiled, _) = corpus::corpus();
    let mut loaded = load_telling(2, Link::Bare, false);
    loaded
        .programs
        .swap(&write(&compiled.cells).unwrap())
        .unwrap();
    let losses = loaded.programs.ebpf.take_map("LOSSES").unwrap();
    let losses: PerCpuArray<MapData, u64> = losses.try_into().unwrap();
    for _ in 0..DROPS {
        let (action, _) = run::xdp(&loaded.fd, &[0x50; 40], 1).unwrap();
        assert_eq!(action, 1);
    }
    let mut told = 0;
    while let Some(item) = loaded.told.next() {
        assert_eq!(item.len(), size_of::<Told>());
        told += 1;
    }
    let lost: u64 = losses
        .get(&(Loss::PlaneEvent as u32), 0)
        .unwrap()
        .iter()
        .sum();
    assert!(told >= 50 && lost > 0, "{told} told, {lost} lost");
    assert_eq!(told + lost, DROPS);
}

/// Packets arrive and leave, and the policy is replaced now and then: after
/// each step both sides know the same flows.
#[test]
fn flows_are_the_same_in_the_kernel_and_here() {
    if !root() {
        return;
    }
    let mut rng = Rng::with_seed(8);
    let mut loaded = load(1, Link::Ethernet);
    let egress: &mut SchedClassifier = loaded
        .programs
        .ebpf
        .program_mut("plane_egress")
        .unwrap()
        .try_into()
        .unwrap();
    egress.load().unwrap();
    soon_verified("out", &egress.info().unwrap());
    let egress = egress.fd().unwrap().try_clone().unwrap();
    let mut host = Host::new(Vec::new());
    let mut established = 0;
    for generation in 1..30 {
        let policy = read(&random::policy(&mut rng, 20));
        let compiled = compile::image(&policy, generation).unwrap();
        loaded
            .programs
            .swap(&write(&compiled.cells).unwrap())
            .unwrap();
        host.cells = compiled.cells;
        for _ in 0..300 {
            let mut packet = random::packet(&mut rng);
            packet.link = Link::Ethernet;
            let facts = parse(&packet.bytes()[..], Link::Ethernet);
            host.leaves(1, &facts);
            let (action, _) = run::xdp(&egress, &packet.bytes(), 1).unwrap();
            assert_eq!(action.cast_signed(), -1);
            // Its answer, and another.
            let icmp = match packet.icmp.0 {
                8 => 0,
                128 => 129,
                other => other,
            };
            let answer = Packet {
                source: packet.destination,
                destination: packet.source,
                source_port: packet.destination_port,
                destination_port: packet.source_port,
                icmp: (icmp, 0),
                flags: 0x10,
                ..packet
            };
            let mut other = random::packet(&mut rng);
            other.link = Link::Ethernet;
            for packet in [answer.clone(), other.clone(), answer, other] {
                let bytes = packet.bytes();
                let expected = host.judge(1, &parse(&bytes[..], Link::Ethernet));
                assert_eq!(loaded.judge(&bytes), expected, "{packet:?}");
                established += usize::from(expected.reason == Reason::Established);
            }
        }
    }
    assert!(established > 1000, "{established}");
}

/// Packets are judged while the policy is replaced a thousand times: each gets
/// the verdict of the one policy or of the other, with its generation.
#[test]
fn no_packet_sees_half_a_policy() {
    if !root() {
        return;
    }
    let policy = |prefix: &str, port: u16, generation| {
        // As many rules before it as make it another number in each.
        let rule = |name: &str, port: u16| {
            format!(
                "[[plane.rule]]\nname = \"{name}\"\nverdict = \"allow\"\nprotocol = \"tcp\"\n\
                 ports = [{port}]\nsources = [\"{prefix}\"]\n"
            )
        };
        let head = "[[plane]]\nname = \"p\"\ninterfaces = \"x\"\nmode = \"enforce\"\n";
        let before = (0..generation).map(|n| rule(&format!("r{n}"), 1000 + n));
        let text = [head, &before.collect::<String>(), &rule("r", port)].concat();
        compile::image(&read(&text), generation.into()).unwrap()
    };
    let (one, other) = (
        policy("10.1.0.0/16", 22, 3_u16),
        policy("10.0.0.0/8", 80, 40),
    );
    let images = [write(&one.cells).unwrap(), write(&other.cells).unwrap()];
    let mut hosts = [Host::new(one.cells), Host::new(other.cells)];
    let mut loaded = load(1, Link::Bare);
    loaded.programs.swap(&images[0]).unwrap();
    let source = "10.1.2.3".parse().unwrap();
    let packets = [22, 80].map(|port| Packet::tcp(source, "10.9.9.9".parse().unwrap(), port));
    let packets = packets.map(|packet| packet.bytes());
    let Loaded {
        mut programs,
        mut told,
        fd,
    } = loaded;
    let done = AtomicBool::new(false);
    let mut seen = [0_u32; 2];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0..1000 {
                programs.swap(&images[(turn + 1) % 2]).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            for packet in &packets {
                run::xdp(&fd, packet, 1).unwrap();
                let told = next(&mut told);
                let which = usize::from(told.generation == 40);
                let expected = hosts[which].judge(1, &parse(&packet[..], Link::Bare));
                assert_eq!(told.outcome, expected, "generation {}", told.generation);
                seen[which] += 1;
            }
        }
    });
    assert!(seen.iter().all(|packets| *packets > 0), "{seen:?}");
}
