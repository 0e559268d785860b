//! What a packet costs under a policy of planes, and how many are dropped in a
//! second, by the tests that measure it (userspace/tests/planes/cost.rs and
//! drops.rs).

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::Bench;
use super::row::{Goal, Row};
use crate::sh;

/// A policy that is large, and one that is not: its rules.
const LARGE: u32 = 10_000;
const SMALL: u32 = 10;
const SIDE: &str = "planes";

/// What one run of a test says.
fn lines(name: &str) -> Result<Vec<Value>> {
    let mut command = sh::cargo();
    command
        .args(["test", "--quiet", "--package", "kldtrace", "--test=planes"])
        .args(["--", "--ignored", "--nocapture", "--exact", name])
        .env("KLDTRACE_BENCH", "1");
    let text = sh::output(&mut command)?;
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(serde_json::from_str).collect::<Result<_, _>>();
    lines.with_context(|| format!("{name} printed {text}"))
}

/// A number of the line in which all of `wanted` stand, for each round; none
/// where a peer is not installed.
fn numbers(rounds: &[Vec<Value>], wanted: &[(&str, Value)], name: &str) -> Vec<f64> {
    let number = |lines: &Vec<Value>| {
        let is = |line: &&Value| wanted.iter().all(|(name, value)| line[*name] == *value);
        lines.iter().find(is)?[name].as_f64()
    };
    rounds.iter().filter_map(number).collect()
}

/// Nanoseconds of packets, and packets dropped in a second.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let (mut cost, mut drops) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        bench.say("planes", round, "cost of a packet, and xdp-filter's")?;
        cost.push(lines("cost::cost_of_a_packet")?);
        bench.say("planes", round, "drops, and those of nftables")?;
        drops.push(lines("drops::drops_per_second")?);
    }
    let net = |rules: u32, packet: &str| {
        let wanted = [("rules", json!(rules)), ("packet", json!(packet))];
        numbers(&cost, &wanted, "net")
    };
    let mut rows = Vec::new();
    for (packet, peer, goal) in [
        ("established", "xdp-filter passes", 0.7),
        ("established, UDP", "xdp-filter passes", 0.7),
        ("a rule allows", "xdp-filter passes", 1.3),
        ("no rule matches", "xdp-filter drops", 1.0),
        ("on the block list", "xdp-filter drops", 1.0),
        ("SYN, any source", "xdp-filter, any source", 1.0),
        ("UDP, any source", "xdp-filter, any source", 1.0),
        ("SYN, any source, a rate", "xdp-filter, any source", 1.0),
        ("UDP, any source, a rate", "xdp-filter, any source", 1.0),
    ] {
        let what = format!("packet, 10,000 rules and 100,000 prefixes: {packet}");
        let row = Row::new(&what, SIDE, "ns net", net(LARGE, packet));
        rows.push(
            row.against(peer, net(LARGE, peer))
                .goal(Goal::RatioAtMost(goal)),
        );
    }
    for packet in [
        "established",
        "a rule allows",
        "no rule matches",
        "SYN, any source",
    ] {
        let what = format!("packet, large policy against small: {packet}");
        let row = Row::new(&what, "10,000 rules", "ns net", net(LARGE, packet));
        rows.push(
            row.against("10 rules", net(SMALL, packet))
                .goal(Goal::RatioAtMost(1.2)),
        );
    }
    for sources in ["one source", "any source"] {
        let of = |side| numbers(&drops, &[("sources", json!(sources))], side);
        let what = format!("drops on a pair of interfaces, {sources}");
        let row = Row::new(&what, SIDE, "packets/s", of("planes"));
        rows.push(
            row.against("nftables", of("nftables"))
                .goal(Goal::RatioAtLeast(3.0)),
        );
    }
    Ok(rows)
}
