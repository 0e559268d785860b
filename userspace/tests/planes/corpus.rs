//! Packets with the verdict that they must get (probes/abi/tests/corpus).

use std::fmt::Write as _;

use kldtrace::planes::{
    compile::{self, Compiled},
    host::Host,
    policy::Policy,
};
use kldtrace_abi::plane::{Action, Link, Malformed, Outcome, Reason, parse, service::Always};

use super::agree::read;

const POLICY: &str = include_str!("../../../probes/abi/tests/corpus/policy.toml");
const PACKETS: &str = include_str!("../../../probes/abi/tests/corpus/packets.txt");

/// A packet of the corpus.
pub struct Case {
    /// The number of the plane.
    pub plane: u8,
    pub link: Link,
    pub verdict: &'static str,
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

/// The corpus with its policy.
pub fn corpus() -> (Policy, Compiled, Vec<Case>) {
    let policy = read(POLICY);
    let compiled = compile::image(&policy, 1).unwrap();
    let lines = PACKETS.lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let cases = lines.map(|line| {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [plane, verdict, name, hex] = columns[..] else {
            panic!("{line}");
        };
        let number = policy.planes.iter().position(|one| one.name == plane);
        let bytes = hex.as_bytes().chunks(2);
        let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
        Case {
            plane: u8::try_from(number.unwrap() + 1).unwrap(),
            link: link(plane),
            verdict,
            name,
            bytes: bytes.map(byte).collect(),
        }
    });
    let cases = cases.collect();
    (policy, compiled, cases)
}

/// What a plane's packets begin with, in the corpus.
pub fn link(plane: &str) -> Link {
    if ["external", "lab"].contains(&plane) {
        Link::Ethernet
    } else {
        Link::Bare
    }
}

/// A verdict as the corpus writes it.
pub fn written(outcome: Outcome, compiled: &Compiled) -> String {
    let mut text = match outcome.action {
        Action::Pass => "pass ",
        Action::Drop => "drop ",
        Action::WouldDrop => "would-drop ",
    }
    .to_owned();
    text += &outcome.reason.as_str().replace('_', "-");
    let detail = match outcome.reason {
        Reason::Malformed => {
            let mut all = Malformed::ALL.iter();
            all.find(|one| **one as u8 == outcome.detail)
                .unwrap()
                .as_str()
        }
        Reason::Always => {
            let mut all = Always::ALL.iter();
            all.find(|one| **one as u8 == outcome.detail)
                .unwrap()
                .as_str()
        }
        _ => compiled.rule(outcome.rule).map_or("", |rule| &rule.name),
    };
    if !detail.is_empty() {
        let _ = write!(text, " {detail}");
    }
    text
}

#[test]
fn the_corpus_gets_its_verdicts() {
    let (_, compiled, cases) = corpus();
    let mut wrong = Vec::new();
    for case in &cases {
        let facts = parse(&case.bytes[..], case.link);
        let outcome = Host::new(compiled.cells.clone()).judge(case.plane, &facts);
        let found = written(outcome, &compiled);
        if found != case.verdict {
            wrong.push(format!("{}: {found}, not {}", case.name, case.verdict));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    assert!(cases.len() >= 300, "{}", cases.len());
}
