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
    for number in 0..policies {
        let text = random::policy(&mut rng, rules);
        let policy = read(&text);
        let compiled = compile::image(&policy, 1).unwrap();
        let mut host = Host::new(compiled.cells.clone());
        for _ in 0..packets {
            let packet: Packet = random::packet(&mut rng);
            let on = rng.usize(..policy.planes.len());
            let expected = reference::judge(&policy, on, &packet);
            let facts = parse(&packet.bytes()[..], packet.link);
            let found = told(host.judge(u8::try_from(on + 1).unwrap(), &facts), &compiled);
            assert_eq!(
                found, expected,
                "policy {number}, plane {on}: {packet:?}\n{facts:?}\n{text}"
            );
            *seen.entry((found.action, found.reason)).or_default() += 1;
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

/// 1,000 policies and 10 million packets: `cargo test -p kldtrace --release
/// --test=planes -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn ten_million_packets() {
    compare(1_000, 10_000, 40, 2);
}
