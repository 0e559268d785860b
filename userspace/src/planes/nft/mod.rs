//! Whether nftables drops what a policy lets pass.
//!
//! The planes' filters come first, so a rule that allows something is of no
//! use where nftables drops it behind them. This follows first packets of each
//! rule through the chains that the kernel would follow. What it does not
//! understand it says; it guesses nothing.

mod field;
mod follow;
mod node;
mod packet;
mod ruleset;
mod run;
mod sample;
mod set;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use kldtrace_abi::plane::Action;

use self::sample::{Place, packets};
pub use self::{
    follow::{Fate, follow},
    node::Node,
    packet::{Bound, Packet},
    ruleset::Ruleset,
    run::list,
};
use super::{
    check::Finding,
    compile::{Compiled, TooLarge, floor_rule, image},
    explain,
    host::Host,
    policy::{Policy, Rule},
};

/// Packets that are followed for a whole policy.
const MOST: usize = 200_000;

/// Asks nftables on this node, in this network namespace.
///
/// # Errors
/// Why that was not possible, for people.
pub fn check_here(policy: &Policy) -> Result<Vec<Finding>, String> {
    let printed = list()?;
    let ruleset = Ruleset::read(&printed);
    let ruleset = ruleset.map_err(|error| format!("what nft prints is not understood: {error}"))?;
    let node = Node::here().map_err(|error| format!("{error:#}"))?;
    check(policy, &ruleset, &node).map_err(|error| error.to_string())
}

/// What nftables has against what a policy lets pass on this node.
///
/// # Errors
/// For a policy that cannot be compiled.
pub fn check(policy: &Policy, ruleset: &Ruleset, node: &Node) -> Result<Vec<Finding>, TooLarge> {
    let compiled = image(policy, 1)?;
    let mut asker = Asker {
        ruleset,
        node,
        host: Host::new(compiled.cells.clone()),
        compiled: &compiled,
        left: MOST,
        unknown: BTreeMap::new(),
        findings: Vec::new(),
    };
    let floor = policy.floor.as_ref();
    let floor = floor.map(|floor| (floor.plane, floor_rule(floor)));
    for (number, plane) in policy.planes.iter().enumerate() {
        let place = Place {
            on: plane,
            from: plane,
            to: plane,
        };
        let first = floor.iter().filter(|(on, _)| *on == number);
        for rule in first.map(|(_, rule)| rule).chain(&plane.rules) {
            asker.rule(rule, &[place]);
        }
    }
    for cross in &policy.crosses {
        let (from, to) = (&policy.planes[cross.from], &policy.planes[cross.to]);
        let sides = [(cross.at_from, cross.from), (cross.at_to, cross.to)];
        let places = sides.iter().filter(|(accepted, _)| *accepted);
        let places: Vec<_> = places
            .map(|(_, on)| Place {
                on: &policy.planes[*on],
                from,
                to,
            })
            .collect();
        asker.rule(&cross.rule, &places);
    }
    let Asker {
        mut findings,
        unknown,
        ..
    } = asker;
    for (why, (line, rules)) in unknown {
        let others = match rules {
            1 => String::new(),
            more => format!(" and {} more", more - 1),
        };
        findings.push(Finding {
            line,
            message: format!(
                "cannot tell whether nftables lets pass what this rule{others} allows: {why}"
            ),
            grave: false,
        });
    }
    findings.sort();
    Ok(findings)
}

struct Asker<'a> {
    ruleset: &'a Ruleset,
    node: &'a Node,
    compiled: &'a Compiled,
    host: Host,
    /// Packets that may still be followed.
    left: usize,
    /// Why it cannot be told: the first line, and for how many rules.
    unknown: BTreeMap<String, (usize, usize)>,
    findings: Vec<Finding>,
}

impl Asker<'_> {
    fn rule(&mut self, rule: &Rule, places: &[Place<'_>]) {
        if !rule.pass {
            return;
        }
        let (mut passed, mut dropped) = (0, None);
        let mut unknown = None;
        let mut complete = true;
        for place in places {
            let (packets, all) = packets(*place, rule, self.ruleset, self.node);
            complete &= all;
            for packet in packets {
                if !self.allows(place.on.number, &packet, rule) {
                    continue;
                }
                let Some(left) = self.left.checked_sub(1) else {
                    complete = false;
                    break;
                };
                self.left = left;
                match follow(self.ruleset, self.node, &packet) {
                    Fate::Passes => passed += 1,
                    Fate::Dropped(place) => dropped = dropped.or(Some((packet, place))),
                    Fate::Unknown(why) => unknown = unknown.or(Some(why)),
                }
            }
        }
        if !complete {
            unknown = unknown.or_else(|| Some("too many kinds of packets".to_owned()));
        }
        if let Some((packet, place)) = dropped {
            let some = passed > 0 || unknown.is_some();
            let part = if some { "a part of " } else { "" };
            self.findings.push(Finding {
                line: rule.line,
                message: format!(
                    "nftables drops {part}what rule {:?} allows, such as {} on {}: {place}",
                    rule.name,
                    explain::words(&packet.facts()),
                    packet.arrives
                ),
                grave: false,
            });
        } else if let Some(why) = unknown {
            let known = self.unknown.entry(why).or_insert((rule.line, 0));
            known.1 += 1;
        }
    }

    /// Whether it is this rule that lets a packet pass.
    fn allows(&mut self, on: u8, packet: &Packet, rule: &Rule) -> bool {
        self.host.buckets.clear();
        let outcome = self.host.judge(on, &packet.facts());
        let by = self.compiled.rule(outcome.rule);
        outcome.action == Action::Pass && by.is_some_and(|by| by.line == rule.line)
    }
}
