//! The compiler with the verdict against the reference.

use std::{collections::HashMap, path::Path};

use fastrand::Rng;
use kldtrace::planes::{
    compile::{self, Compiled},
    host::Host,
    policy::Policy,
    read,
};
use kldtrace_abi::plane::{Action, Outcome, Reason, parse};

use super::{
    packet::Packet,
    random,
    reference::{self, Expected},
};

pub fn no_files(_: &Path) -> std::io::Result<Vec<u8>> {
    Err(std::io::ErrorKind::NotFound.into())
}

pub fn read(text: &str) -> Policy {
    read::parse(text, "policy.toml", &no_files).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A verdict in the reference's terms.
pub fn told(outcome: Outcome, compiled: &Compiled) -> Expected {
    let rule = compiled.rule(outcome.rule);
    Expected {
        action: outcome.action,
        reason: outcome.reason,
        rule: rule.map(|rule| (rule.place.clone(), rule.name.clone())),
    }
}

fn compare(policies: usize, packets: usize, rules: usize, start: u64) {
    let mut rng = Rng::with_seed(start);
    let mut seen: HashMap<(Action, Reason), usize> = HashMap::new();
    // One for all policies: what it keeps of one must not be found in the next.
    let mut host = Host::new(Vec::new());
    for number in 0..policies {
        let text = random::policy(&mut rng, rules);
        let policy = read(&text);
        let generation = u32::try_from(number).unwrap() + 1;
        let compiled = compile::image(&policy, generation).unwrap();
        host.cells.clone_from(&compiled.cells);
        for _ in 0..packets {
            let packet: Packet = random::packet(&mut rng);
            let on = rng.usize(..policy.planes.len());
            let expected = reference::judge(&policy, on, &packet);
            let facts = parse(&packet.bytes()[..], packet.link);
            let plane = u8::try_from(on + 1).unwrap();
            // The second time by what was kept of the first.
            let found = [(); 2].map(|()| told(host.judge(plane, &facts), &compiled));
            assert_eq!(
                found,
                [expected.clone(), expected.clone()],
                "policy {number}, plane {on}: {packet:?}\n{facts:?}\n{text}"
            );
            *seen.entry((expected.action, expected.reason)).or_default() += 1;
        }
    }
    // That they agree says nothing about what never happened.
    for reason in [Reason::Default, Reason::Rule] {
        for action in [Action::Pass, Action::Drop, Action::WouldDrop] {
            assert!(seen.contains_key(&(action, reason)), "{seen:?}");
        }
    }
    for reason in [
        Reason::Blocked,
        Reason::Cross,
        Reason::Fragment,
        Reason::WireGuard,
    ] {
        for action in [Action::Drop, Action::WouldDrop] {
            assert!(seen.contains_key(&(action, reason)), "{seen:?}");
        }
    }
    for reason in [Reason::Always, Reason::Floor] {
        assert!(seen.contains_key(&(Action::Pass, reason)), "{seen:?}");
    }
}

#[test]
fn random_policies_and_packets() {
    compare(100, 2_000, 12, 1);
}

/// 1,000 policies and 10 million packets: `cargo test -p kldtrace --test planes
/// agree -- --ignored`.
#[test]
#[ignore = "takes half a minute"]
fn ten_million_packets() {
    compare(1_000, 10_000, 40, 2);
}
