//! The same verdicts from the program in the kernel.

use aya::{
    maps::RingBuf,
    programs::{ProgramFd, SchedClassifier, Xdp},
};
use fastrand::Rng;
use kldtrace::planes::{
    compile,
    host::Host,
    install::{Programs, write},
};
use kldtrace_abi::plane::{Action, Link, Outcome, Reason, count::Told, parse};

use super::{agree::read, corpus, packet::Packet, random, run};

/// The programs of one plane, with their packets' way back.
struct Loaded {
    programs: Programs,
    told: RingBuf<aya::maps::MapData>,
    fd: ProgramFd,
}

fn load(plane: u8, link: Link) -> Loaded {
    let mut programs = Programs::load(plane, link, 1000, true).unwrap();
    let told = programs.ebpf.take_map("PLANE_TOLD").unwrap();
    let program: &mut Xdp = programs
        .ebpf
        .program_mut("plane_ingress")
        .unwrap()
        .try_into()
        .unwrap();
    program.load().unwrap();
    let info = program.info().unwrap();
    println!(
        "plane {plane}: {:?} instructions looked at by the verifier, {} bytes",
        info.verified_instruction_count(),
        info.size_jitted()
    );
    let fd = program.fd().unwrap().try_clone().unwrap();
    Loaded {
        programs,
        told: told.try_into().unwrap(),
        fd,
    }
}

impl Loaded {
    /// The verdict on a packet.
    fn judge(&mut self, packet: &[u8]) -> Outcome {
        let (action, _) = run::xdp(&self.fd, packet, 1).unwrap();
        let item = self.told.next().expect("every packet is told of");
        assert_eq!(item.len(), size_of::<Told>());
        // SAFETY: the program wrote one.
        let told: Told = unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) };
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

fn root() -> bool {
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
        for _ in 0..20 {
            let policy = read(&random::policy(&mut rng, 20));
            let compiled = compile::image(&policy, 1).unwrap();
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
                let expected = host.judge(1, &parse(&bytes[..], link));
                assert_eq!(loaded.judge(&bytes), expected, "{bytes:x?}");
            }
        }
    }
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
    let info = egress.info().unwrap();
    println!(
        "leaving: {:?} instructions looked at",
        info.verified_instruction_count()
    );
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
            for packet in [answer, other] {
                let bytes = packet.bytes();
                let expected = host.judge(1, &parse(&bytes[..], Link::Ethernet));
                assert_eq!(loaded.judge(&bytes), expected, "{packet:?}");
                established += usize::from(expected.reason == Reason::Established);
            }
        }
    }
    assert!(established > 1000, "{established}");
}
