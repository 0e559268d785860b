//! What a policy that can be compiled may still have wrong.

use std::{
    cmp::Reverse,
    net::{IpAddr, SocketAddr},
};

use kldtrace_abi::plane::{Action, Facts, Family};

use super::{
    compile::{self, Compiled, TCP, TooLarge},
    explain,
    host::Host,
    policy::{self, Plane, Policy, Prefix},
};
use crate::words::matches;

/// Something to know before a policy is applied.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The line in the policy.
    pub line: usize,
    /// What is the matter.
    pub message: String,
    /// Whether the policy should not be applied as it is.
    pub grave: bool,
}

/// The connection that somebody types in: `SSH_CONNECTION` of OpenSSH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Where he sits.
    pub client: SocketAddr,
    /// Where the node listens.
    pub server: SocketAddr,
}

impl Session {
    /// Reads the value of `SSH_CONNECTION`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut end = || {
            // The scope of a link-local address is no part of it.
            let address = words.next()?.split('%').next()?.parse::<IpAddr>().ok()?;
            Some(SocketAddr::new(address, words.next()?.parse().ok()?))
        };
        Some(Self {
            client: end()?,
            server: end()?,
        })
    }
}

/// Looks at a policy. `interfaces` are those that there are, `session` the one
/// that asks.
///
/// # Errors
/// For a policy whose rules overlap in more ways than an image can hold.
pub fn check(
    policy: &Policy,
    interfaces: &[String],
    session: Option<Session>,
) -> Result<Vec<Finding>, TooLarge> {
    let mut findings = Vec::new();
    for (number, plane) in policy.planes.iter().enumerate() {
        has_interface(plane, interfaces, &mut findings);
        for other in &policy.planes[..number] {
            shared(plane, other, interfaces, &mut findings);
        }
    }
    floor(policy, &mut findings);
    for rule in compile::unreached(policy)? {
        let by = rule.by.iter().take(3).map(|(name, line)| match &name[..] {
            "" => format!("the default in line {line}"),
            name => format!("{name:?} in line {line}"),
        });
        let by = by.collect::<Vec<_>>().join(", ");
        let more = if rule.by.len() > 3 { " and others" } else { "" };
        findings.push(Finding {
            line: rule.line,
            message: format!(
                "rule {:?} of {} is never reached: before it matches {by}{more}",
                rule.name, rule.place
            ),
            grave: false,
        });
    }
    if let Some(session) = session {
        let compiled = compile::image(policy, 1)?;
        findings.extend(cut(policy, &compiled, session));
    }
    findings.sort();
    Ok(findings)
}

fn has_interface(plane: &Plane, interfaces: &[String], findings: &mut Vec<Finding>) {
    let serves = |pattern: &String| interfaces.iter().any(|name| matches(pattern, name));
    if !plane.interfaces.iter().any(serves) {
        findings.push(Finding {
            line: plane.line,
            message: format!(
                "plane {:?} has no interface here: {} (it is filtered when it comes up)",
                plane.name,
                plane.interfaces.join(", ")
            ),
            grave: false,
        });
    }
}

/// What two planes both claim.
fn shared(plane: &Plane, other: &Plane, interfaces: &[String], findings: &mut Vec<Finding>) {
    let claims = |plane: &Plane, name: &str| plane.interfaces.iter().any(|p| matches(p, name));
    for name in interfaces {
        if claims(plane, name) && claims(other, name) {
            findings.push(Finding {
                line: plane.line,
                message: format!(
                    "interface {name} is of plane {:?} in line {} as well: the first has it",
                    other.name, other.line
                ),
                grave: true,
            });
        }
    }
    for prefix in &plane.prefixes {
        for that in &other.prefixes {
            let both = prefix == that;
            // All the rest of the world may well be a plane.
            let world = !both && prefix.length.min(that.length) == 0;
            if world || (!prefix.contains(*that) && !that.contains(*prefix)) {
                continue;
            }
            let how = if both {
                "the first has its addresses"
            } else {
                "the longer prefix has the addresses in both"
            };
            findings.push(Finding {
                line: plane.line,
                message: format!(
                    "{prefix} of plane {:?} overlaps {that} of {:?} in line {}: {how}",
                    plane.name, other.name, other.line
                ),
                grave: both,
            });
        }
    }
}

fn floor(policy: &Policy, findings: &mut Vec<Finding>) {
    let Some(floor) = &policy.floor else {
        let line = policy.planes.first().map_or(1, |plane| plane.line);
        findings.push(Finding {
            line,
            message: "no [floor]: nothing keeps a mistake from locking you out".to_owned(),
            grave: false,
        });
        return;
    };
    let outside = floor
        .sources
        .iter()
        .filter(|source| plane_of(policy, **source).is_some_and(|plane| plane != floor.plane));
    for source in outside {
        findings.push(Finding {
            line: floor.line,
            message: format!(
                "{source} in [floor] is of another plane: it reaches {:?} by a [[cross]] only",
                policy.planes[floor.plane].name
            ),
            grave: false,
        });
    }
}

/// The plane with the longest prefix around one; of two alike the first.
fn plane_of(policy: &Policy, prefix: Prefix) -> Option<usize> {
    let planes = policy.planes.iter().enumerate();
    let all = planes.flat_map(|(number, plane)| plane.prefixes.iter().map(move |p| (number, p)));
    let around = all.filter(|(_, outer)| outer.contains(prefix));
    around
        .min_by_key(|(_, outer)| Reverse(outer.length))
        .map(|(number, _)| number)
}

/// Whether a policy would cut a session: its next connection, as the one that
/// is there passes as long as its flow is known.
fn cut(policy: &Policy, compiled: &Compiled, session: Session) -> Option<Finding> {
    let whole = |address: SocketAddr| Prefix::new(address.ip(), 128);
    let plane = plane_of(policy, whole(session.server))
        .or_else(|| plane_of(policy, whole(session.client)))?;
    let facts = Facts {
        source: policy::address(session.client.ip()),
        destination: policy::address(session.server.ip()),
        length: 60,
        source_port: session.client.port(),
        destination_port: session.server.port(),
        family: if session.client.is_ipv4() {
            Family::V4
        } else {
            Family::V6
        },
        protocol: TCP,
        tcp_flags: 0x02,
        ..Facts::default()
    };
    let outcome = Host::new(compiled.cells.clone()).judge(policy.planes[plane].number, &facts);
    if outcome.action == Action::Pass {
        return None;
    }
    let line = compiled
        .rule(outcome.rule)
        .map_or(policy.planes[plane].line, |rule| rule.line);
    Some(Finding {
        line,
        message: format!(
            "this would cut the session you type in, {} > {} on {:?}: {}",
            session.client,
            session.server,
            policy.planes[plane].name,
            explain::told(&outcome, compiled)
        ),
        grave: outcome.action == Action::Drop,
    })
}
