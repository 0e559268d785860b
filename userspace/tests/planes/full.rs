//! A table of flows that is full.

use aya::programs::{SchedClassifier, Xdp};
use kldtrace::planes::{
    compile,
    install::{Programs, write},
};
use kldtrace_abi::plane::{Action, Link, Outcome, Reason, count::counter};

use super::{agree::read, kernel::root, packet::Packet, run};

/// More than fit.
const FLOWS: u32 = 200_000;

/// The flow that was used longest ago makes room, so what leaves now is always
/// answered. What is forgotten is judged as a first packet, and counted so.
#[test]
fn the_oldest_flow_makes_room() {
    if !root() {
        return;
    }
    let policy = "[[plane]]\nname = \"p\"\ninterfaces = [\"x\"]\nmode = \"enforce\"\n";
    let compiled = compile::image(&read(policy), 1).unwrap();
    let mut programs = Programs::load(1, Link::Bare, 10, false).unwrap();
    programs.swap(&write(&compiled.cells).unwrap()).unwrap();
    let program = programs.ebpf.program_mut("plane_egress").unwrap();
    let egress: &mut SchedClassifier = program.try_into().unwrap();
    egress.load().unwrap();
    let egress = egress.fd().unwrap().try_clone().unwrap();
    let program = programs.ebpf.program_mut("plane_ingress").unwrap();
    let ingress: &mut Xdp = program.try_into().unwrap();
    ingress.load().unwrap();
    let ingress = ingress.fd().unwrap().try_clone().unwrap();
    let counts = programs.counts().unwrap();

    let node = "10.0.0.1".parse().unwrap();
    let peer = |number: u32| std::net::Ipv4Addr::from_bits(0x0a01_0000 + number).into();
    let packet = |from, to| {
        let mut packet = Packet::tcp(from, to, 4000);
        packet.source_port = 4000;
        // ACK: of a connection that is there.
        packet.flags = 0x10;
        packet.link = Link::Bare;
        packet.bytes()
    };
    for number in 0..FLOWS {
        run::xdp(&egress, &packet(node, peer(number)), 1).unwrap();
    }
    let verdict = |number| {
        run::xdp(&ingress, &packet(peer(number), node), 1)
            .unwrap()
            .0
    };
    // include/uapi/linux/bpf.h: XDP_DROP 1, XDP_PASS 2.
    assert_eq!((verdict(FLOWS - 1), verdict(0)), (2, 1));
    let dropped = Outcome {
        action: Action::Drop,
        reason: Reason::Default,
        counter: compiled.rules[0].counter,
        ..Outcome::default()
    };
    assert_eq!(counts.read(counter(1, &dropped)).unwrap().packets, 1);
}
