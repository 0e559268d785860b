//! The planes' parser with the verdict, and their policies' reader with the
//! compiler, each with what must hold whatever the bytes are: for the fuzz
//! targets in fuzz/, and no part of what is built for users.

use std::{cell::RefCell, net::IpAddr, path::Path};

use kldtrace_abi::plane::{Family, FlowKey, Link, Malformed, Reason, flow::stamp_of, parse};

use crate::planes::{check, compile, explain, host::Host, policy::Policy, read};

/// A name, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 3] = [
    ("plane_explain", plane_explain),
    ("plane_packet", plane_packet),
    ("plane_policy", plane_policy),
];

/// The policy that packets are judged by: it has planes of both kinds.
const POLICY: &str = include_str!("../../probes/abi/tests/corpus/policy.toml");

thread_local! {
    static HOST: RefCell<Host> = RefCell::new(Host::new(
        compile::image(&policy(POLICY).expect("the corpus's policy"), 1)
            .expect("it is small")
            .cells,
    ));
}

/// No file is there.
fn policy(text: &str) -> Option<Policy> {
    let files = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    read::parse(text, "policy.toml", &files).ok()
}

/// Packets that arrive and leave, one after the other: a byte that says on
/// which plane, in which direction and behind which header, two with its
/// length, and the packet.
fn plane_packet(mut data: &[u8]) {
    HOST.with_borrow_mut(|host| {
        host.flows.clear();
        host.stamps.clear();
        host.buckets.clear();
        host.memos.clear();
        host.now = 1_000_000_000_000;
        while let [how, low, high, rest @ ..] = data {
            let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
            let (packet, behind) = rest.split_at(length);
            data = behind;
            one_packet(host, *how, packet);
        }
    });
}

fn one_packet(host: &mut Host, how: u8, packet: &[u8]) {
    let link = if how & 1 == 0 {
        Link::Bare
    } else {
        Link::Ethernet
    };
    let plane = how >> 4;
    let facts = parse(packet, link);
    let ip = matches!(facts.family, Family::V4 | Family::V6);
    let sound = facts.malformed == Malformed::No;
    assert!(!ip || !sound || facts.length as usize <= packet.len());
    host.now += u64::from(how >> 2 & 3) * 400_000_000;
    if how & 2 != 0 {
        host.leaves(plane, &facts);
        return;
    }
    let found = [(); 2].map(|()| host.judge(plane, &facts));
    let kept = std::mem::take(&mut host.memos);
    // And as if the table of flows were always asked.
    let stamped = FlowKey::arriving(&facts, plane).map(|key| key.place());
    let stamp = stamped.map(|stamped| host.stamps.insert(stamped, stamp_of(host.now)));
    let expected = host.judge(plane, &facts);
    if let (Some(stamped), Some(stamp)) = (stamped, stamp) {
        host.stamps.insert(stamped, stamp.unwrap_or_default());
    }
    host.memos = kept;
    // The image has all cells that it names, but for plane 0, which is none.
    assert!(plane == 0 || expected.reason != Reason::Image);
    assert!(
        sound || plane == 0 || expected.reason == Reason::Malformed || !planes().contains(&plane)
    );
    if expected.limited == 0 {
        assert_eq!(found, [expected; 2], "{facts:?}");
    }
}

/// Numbers of the planes that the policy has.
fn planes() -> std::ops::RangeInclusive<u8> {
    1..=5
}

/// A policy's text; what can be compiled is asked about packets to and from
/// its own prefixes.
fn plane_policy(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let Some(policy) = policy(text) else {
        return;
    };
    let Ok(compiled) = compile::image(&policy, 1) else {
        return;
    };
    check::check(&policy, &["x".to_owned()], None).expect("what compiles can be checked");
    let prefixes = policy.planes.iter().flat_map(|plane| &plane.prefixes);
    let sets = policy.sets.iter().flat_map(|set| &set.prefixes);
    let addresses: Vec<IpAddr> = prefixes
        .chain(sets)
        .take(8)
        .map(|one| one.address())
        .collect();
    let mut host = Host::new(compiled.cells.clone());
    for from in &addresses {
        for to in addresses.iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            let [from, to] = [from, to].map(|address| match address {
                IpAddr::V4(v4) => v4.to_string(),
                IpAddr::V6(v6) => format!("[{v6}]"),
            });
            let facts = explain::packet(&format!("tcp {from}:1 > {to}:22")).expect("a packet");
            for plane in 1..=policy.planes.len() {
                let outcome = host.judge(plane as u8, &facts);
                assert_ne!(outcome.reason, Reason::Image);
                assert!(!explain::told(&outcome, &compiled).is_empty());
            }
        }
    }
}

/// A packet as people write it.
fn plane_explain(data: &[u8]) {
    if let Ok(facts) = explain::packet(&String::from_utf8_lossy(data)) {
        assert_eq!(facts.malformed, Malformed::No);
        assert!(matches!(facts.family, Family::V4 | Family::V6));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    /// Each seed as it is, and with some of its bytes changed at random: what a
    /// real run of the fuzzer does better, done at each test.
    #[test]
    fn what_must_hold_holds_for_the_seeds_and_their_neighbours() {
        let mut random = fastrand::Rng::with_seed(5);
        let corpus = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus"));
        for (target, run) in TARGETS {
            for file in fs::read_dir(corpus.join(target)).expect("seeds") {
                let seed = fs::read(file.unwrap().path()).unwrap();
                run(&seed);
                for _ in 0..100 {
                    let mut data = seed.clone();
                    for _ in 0..random.usize(1..4) {
                        let at = random.usize(..data.len());
                        if random.u8(..4) == 0 {
                            data.remove(at);
                        } else {
                            data[at] = random.u8(..);
                        }
                    }
                    run(&data);
                }
            }
        }
    }
}
