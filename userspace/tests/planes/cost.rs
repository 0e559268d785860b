//! What a packet costs: `cargo test -p kldtrace --release --test=planes --
//! --ignored --nocapture cost`. Nothing is asserted but verdicts: times are of
//! the machine.

use std::net::{IpAddr, Ipv4Addr};

use aya::programs::{ProgramFd, Xdp};
use kldtrace::planes::{
    compile,
    host::Host,
    install::{Programs, write},
};
use kldtrace_abi::plane::{Action, Flow, FlowKey, Link, Reason, parse};

use super::{large, packet::Packet, run};

const ROUNDS: usize = 31;
const REPEAT: u32 = 200_000;

fn fd(programs: &mut Programs, name: &str) -> ProgramFd {
    let program: &mut Xdp = programs.ebpf.program_mut(name).unwrap().try_into().unwrap();
    program.load().unwrap();
    program.fd().unwrap().try_clone().unwrap()
}

/// The median of several runs, so that one that was disturbed does not count.
fn nanoseconds(program: &ProgramFd, packet: &[u8]) -> u32 {
    let mut times: Vec<u32> = (0..ROUNDS)
        .map(|_| run::xdp(program, packet, REPEAT).unwrap().1)
        .collect();
    times.sort_unstable();
    times[ROUNDS / 2]
}

#[test]
#[ignore = "measures: wants a quiet machine"]
fn cost_of_a_packet() {
    let v4 = |a: u8, b: u8, c: u8, d: u8| IpAddr::from(Ipv4Addr::new(a, b, c, d));
    let node = v4(10, 0, 0, 1);
    let allowed = Packet::tcp(v4(10, 0, 3, 9), node, 1003);
    let refused = Packet::tcp(v4(10, 0, 3, 9), node, 22);
    let unknown = Packet::tcp(v4(172, 16, 3, 9), node, 22);
    let mut established = Packet::tcp(v4(10, 0, 3, 9), node, 1003);
    established.flags = 0x10;
    for (rules, prefixes) in [(10, 10), (10_000, 100_000)] {
        let policy = large::policy(rules, prefixes);
        let started = std::time::Instant::now();
        let compiled = compile::image(&policy, 1).unwrap();
        let took = started.elapsed();
        let started = std::time::Instant::now();
        let image = write(&compiled.cells).unwrap();
        let written = started.elapsed();
        println!(
            "{rules} rules, {prefixes} prefixes: compiled in {took:?}, written in {written:?}, {} KiB",
            compiled.cells.len() / 16
        );
        let mut programs = Programs::load(1, Link::Bare, rules, false).unwrap();
        programs.swap(&image).unwrap();
        let key = FlowKey::arriving(&parse(&established.bytes()[..], Link::Bare), 1).unwrap();
        programs
            .remember(
                &key,
                Flow {
                    seen: run::now(),
                    generation: 0,
                    rule: 0,
                },
            )
            .unwrap();
        let (ours, empty) = (
            fd(&mut programs, "plane_ingress"),
            fd(&mut programs, "plane_empty"),
        );
        let mut host = Host::new(compiled.cells);
        let listed = policy.sets[0]
            .prefixes
            .iter()
            .find(|prefix| prefix.length == 24);
        let blocked = Packet::tcp(listed.map_or(node, |prefix| prefix.address()), node, 22);
        let cases = [
            (
                "established",
                &established,
                Reason::Established,
                Action::Pass,
            ),
            ("a rule allows", &allowed, Reason::Rule, Action::Pass),
            ("no rule matches", &refused, Reason::Default, Action::Drop),
            (
                "no rule matches, unknown source",
                &unknown,
                Reason::Default,
                Action::Drop,
            ),
            ("on the block list", &blocked, Reason::Blocked, Action::Drop),
        ];
        let floor = nanoseconds(&empty, &allowed.bytes());
        println!("  {floor:>4} ns  empty program");
        for (name, packet, reason, action) in cases {
            let bytes = packet.bytes();
            let outcome = host.judge(1, &parse(&bytes[..], Link::Bare));
            if reason != Reason::Established {
                assert_eq!((outcome.reason, outcome.action), (reason, action), "{name}");
            }
            let time = nanoseconds(&ours, &bytes);
            println!("  {:>4} ns  {name}", time.saturating_sub(floor));
        }
    }
}
