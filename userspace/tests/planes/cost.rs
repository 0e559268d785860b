//! What a packet costs: `cargo test -p kldtrace --release --test=planes --
//! --ignored --nocapture cost`. Nothing is asserted but verdicts: times are of
//! the machine.

use std::{
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsFd as _, BorrowedFd},
    process::Command,
    time::Instant,
};

use aya::programs::{ProgramFd, Xdp};
use kldtrace::planes::{
    compile,
    host::Host,
    install::{Programs, write},
    policy::Policy,
};
use kldtrace_abi::plane::{Action, Flow, FlowKey, Link, Rate, Reason, parse};

use super::{large, packet::Packet, pair::sh, run, spoof::spoofing};

const ROUNDS: usize = 7;
/// So many that what other programs have left in the caches does not count.
const REPEAT: u32 = 1_000_000;

fn fd(programs: &mut Programs, name: &str) -> ProgramFd {
    let program: &mut Xdp = programs.ebpf.program_mut(name).unwrap().try_into().unwrap();
    program.load().unwrap();
    program.fd().unwrap().try_clone().unwrap()
}

/// A result for `cargo xtask bench`.
pub fn told(line: &serde_json::Value) {
    if std::env::var_os("KLDTRACE_BENCH").is_some() {
        println!("{line}");
    }
}

/// A packet for a program, again and again.
struct Run<'a> {
    name: &'a str,
    program: BorrowedFd<'a>,
    packet: Vec<u8>,
    /// Its source is another each time.
    spoofed: bool,
}

/// Medians in nanoseconds. The programs take turns, so that each has its part
/// of what else happens on the machine.
fn nanoseconds(runs: &[Run<'_>]) -> Vec<u32> {
    let mut times = vec![Vec::new(); runs.len()];
    for _ in 0..ROUNDS {
        for (run, times) in runs.iter().zip(&mut times) {
            times.push(run::xdp(run.program, &run.packet, REPEAT).unwrap().1);
        }
    }
    let median = |mut times: Vec<u32>| {
        times.sort_unstable();
        times[ROUNDS / 2]
    };
    times.into_iter().map(median).collect()
}

/// The programs with a policy, and flows that they know.
fn load(policy: &Policy, established: &[&Packet]) -> (Programs, Host) {
    let rules = policy.planes[0].rules.len() as u32;
    let started = Instant::now();
    let compiled = compile::image(policy, 1).unwrap();
    let took = started.elapsed();
    let started = Instant::now();
    let image = write(&compiled.cells).unwrap();
    let written = started.elapsed();
    println!(
        "{rules} rules, {} prefixes: compiled in {took:?}, written in {written:?}, {} KiB",
        policy.sets[0].prefixes.len(),
        compiled.cells.len() / 16
    );
    let mut programs = Programs::load(1, Link::Ethernet, rules, false).unwrap();
    programs.swap(&image).unwrap();
    for packet in established {
        let key = FlowKey::arriving(&parse(&packet.bytes()[..], Link::Ethernet), 1).unwrap();
        programs.remember(&key, Flow::of(0, 0, run::now())).unwrap();
    }
    (programs, Host::new(compiled.cells))
}

#[test]
#[ignore = "measures: wants a quiet machine"]
fn cost_of_a_packet() {
    let v4 = |a: u8, b: u8, c: u8, d: u8| IpAddr::from(Ipv4Addr::new(a, b, c, d));
    let node = v4(10, 0, 0, 1);
    let tcp = |source, port| Packet {
        link: Link::Ethernet,
        ..Packet::tcp(source, node, port)
    };
    let allowed = tcp(v4(10, 0, 3, 9), 1003);
    let refused = tcp(v4(10, 0, 3, 9), 22);
    let unknown = tcp(v4(172, 16, 3, 9), 22);
    let established = Packet {
        flags: 0x10,
        ..tcp(v4(10, 0, 3, 9), 1003)
    };
    let datagram = Packet {
        protocol: 17,
        ..tcp(v4(10, 0, 3, 9), 1003)
    };
    let peer = XdpFilter::load();
    let peer = peer.as_ref().map(|peer| &peer.0);
    for (rules, prefixes) in [(10, 10), (10_000, 100_000)] {
        let policy = large::policy(rules, prefixes);
        let flows = [&established, &datagram];
        let (mut programs, mut host) = load(&policy, &flows);
        let limited = with_rate(&policy, &flows);
        let (ours, empty) = (
            fd(&mut programs, "plane_ingress"),
            fd(&mut programs, "plane_empty"),
        );
        let listed = policy.sets[0]
            .prefixes
            .iter()
            .find(|prefix| prefix.length == 24);
        let blocked = tcp(listed.map_or(node, |prefix| prefix.address()), 22);
        let of_flow = Reason::Established;
        let cases = [
            ("established", &established, of_flow, Action::Pass),
            ("established, UDP", &datagram, of_flow, Action::Pass),
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
        let [spoofed, spoofed_limited, spoofed_empty] =
            [&ours, &limited, &empty].map(|one| spoofing(one).unwrap());
        let run = |name, program, packet: &Packet| Run {
            name,
            program,
            packet: packet.bytes(),
            spoofed: false,
        };
        let spoof = |name, program, packet: &Packet| Run {
            spoofed: true,
            ..run(name, program, packet)
        };
        let mut runs = vec![
            run("empty program", empty.as_fd(), &allowed),
            spoof("empty program", spoofed_empty.as_fd(), &allowed),
        ];
        for (name, packet, reason, action) in cases {
            let outcome = host.judge(1, &parse(&packet.bytes()[..], Link::Ethernet));
            if reason != of_flow {
                assert_eq!((outcome.reason, outcome.action), (reason, action), "{name}");
            }
            runs.push(run(name, ours.as_fd(), packet));
        }
        let mut arp = run("ARP", ours.as_fd(), &allowed);
        arp.packet = vec![2; 42];
        arp.packet[12..14].copy_from_slice(&[8, 6]);
        runs.push(arp);
        let later = Packet {
            flags: 0x10,
            source_port: 9,
            ..tcp(v4(10, 0, 3, 9), 22)
        };
        let udp = Packet {
            protocol: 17,
            ..refused.clone()
        };
        runs.push(run("of no flow, no rule", ours.as_fd(), &later));
        runs.push(spoof("SYN, any source", spoofed.as_fd(), &refused));
        runs.push(spoof("UDP, any source", spoofed.as_fd(), &udp));
        runs.push(run("SYN, one source, a rate", limited.as_fd(), &refused));
        let limited = spoofed_limited.as_fd();
        runs.push(spoof("SYN, any source, a rate", limited, &refused));
        runs.push(spoof("UDP, any source, a rate", limited, &udp));
        // `xdp-filter load INTERFACE -p deny && xdp-filter port 22 -p tcp`
        let spoofed_peer = peer.map(|peer| spoofing(peer).unwrap());
        if let (Some(peer), Some(spoofed)) = (peer, &spoofed_peer) {
            runs.push(run("xdp-filter passes", peer.as_fd(), &refused));
            runs.push(run("xdp-filter drops", peer.as_fd(), &allowed));
            runs.push(spoof("xdp-filter, any source", spoofed.as_fd(), &allowed));
        }
        show(rules, &runs, &nanoseconds(&runs));
    }
}

/// The program for what arrives, of the same policy with a rate: nothing is
/// remembered on such a plane, and each source has a bucket.
fn with_rate(policy: &Policy, flows: &[&Packet]) -> ProgramFd {
    let mut limited = policy.clone();
    limited.planes[0].rate = Rate {
        interval: 1_000_000,
        early: 1_000_000,
    };
    fd(&mut load(&limited, flows).0, "plane_ingress")
}

/// Shows what each costs beside an empty program.
fn show(rules: u32, runs: &[Run<'_>], times: &[u32]) {
    for (run, time) in runs.iter().zip(times) {
        let own = time.saturating_sub(times[usize::from(run.spoofed)]);
        println!("  {time:>4} ns, net {own:>4}  {}", run.name);
        told(&serde_json::json!({"rules": rules, "packet": run.name, "net": own}));
    }
}

/// xdp-filter on an interface of ours, gone when dropped. Its maps are pinned
/// in a file system that nobody else sees.
struct XdpFilter(ProgramFd);

impl XdpFilter {
    const LOAD: &str = "mount -t bpf bpf /sys/fs/bpf && \
        ip link add kldfilter0 type veth peer name kldfilter1 && \
        xdp-filter load kldfilter0 -p deny -m skb && xdp-filter port 22 -p tcp";

    fn load() -> Option<Self> {
        let mut command = Command::new("unshare");
        command.args(["-m", "sh", "-c", Self::LOAD]);
        // By itself, as the other side is, and not behind a dispatcher.
        command.env("LIBXDP_SKIP_DISPATCHER", "1");
        if !command.output().is_ok_and(|output| output.status.success()) {
            println!("without xdp-filter, of Debian's xdp-tools");
            sh("ip link del kldfilter0");
        }
        let mut programs = aya::programs::loaded_programs().flatten();
        let found =
            programs.find(|info| info.name_as_str().is_some_and(|n| n.starts_with("xdpfilt")));
        Some(Self(found?.fd().ok()?))
    }
}

impl Drop for XdpFilter {
    fn drop(&mut self) {
        sh("ip link del kldfilter0");
    }
}
