//! Rules into the text of a policy, whose own words stay as they are.

use std::{fmt::Write as _, io, path::Path};

use super::{Learned, Proposal};
use crate::planes::{policy::Policy, read};

/// The policy with what is proposed. Rules of a plane come last among its own,
/// what crosses at the end of the file.
///
/// # Errors
/// For a policy whose planes do not each begin with a line `[[plane]]`: then
/// rules have to be put there by hand.
pub fn insert(
    text: &str,
    policy: &Policy,
    files: read::Files<'_>,
    proposal: &Proposal,
) -> Result<String, String> {
    let mut ends = ends(text);
    if ends.len() != policy.planes.len() {
        ends.clear();
    }
    let mut out = String::new();
    let mut rest = 0;
    for (plane, end) in policy.planes.iter().zip(&ends) {
        out += &text[rest..*end];
        rest = *end;
        let own = |rule: &&Learned| rule.cross.is_none() && rule.plane == plane.name;
        for rule in proposal.rules.iter().filter(own) {
            add(&mut out, rule);
        }
    }
    out += &text[rest..];
    for rule in proposal.rules.iter().filter(|rule| rule.cross.is_some()) {
        add(&mut out, rule);
    }
    let known = |path: &Path| -> io::Result<Vec<u8>> { files(path) };
    let read = read::parse(&out, "the proposal", &known);
    match read {
        Ok(read) if fits(policy, &read, proposal) => Ok(out),
        _ => Err(
            "the rules cannot be put into this policy: each plane must begin with a line [[plane]]"
                .to_owned(),
        ),
    }
}

fn add(out: &mut String, rule: &Learned) {
    if !out.ends_with('\n') {
        out.push('\n');
    }
    let _ = write!(out, "\n{}", rule.toml);
}

/// Where each plane of a text ends: before what is said of whatever follows.
fn ends(text: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut in_plane = false;
    // Behind the last line that is neither empty nor a comment.
    let mut end = 0;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let trimmed = line.trim();
        let header = header(trimmed);
        if let Some(name) = header {
            let part = name.starts_with("plane.");
            if in_plane && !part {
                ends.push(end);
            }
            in_plane = name == "plane" || (in_plane && part);
        }
        at += line.len();
        if !trimmed.is_empty() && !trimmed.starts_with('#') {
            end = at;
        }
    }
    if in_plane {
        ends.push(end);
    }
    ends
}

/// The name in a line that begins a table.
fn header(line: &str) -> Option<&str> {
    let line = line.split('#').next()?.trim();
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    let name = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'))
        .unwrap_or(name)
        .trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (!name.is_empty() && name.chars().all(plain) && !name.starts_with(char::is_numeric))
        .then_some(name)
}

/// Whether a policy is the one before and what was proposed.
fn fits(before: &Policy, after: &Policy, proposal: &Proposal) -> bool {
    let own = |name: &str| {
        let rules = proposal.rules.iter();
        rules
            .filter(|rule| rule.cross.is_none() && rule.plane == name)
            .count()
    };
    let same = |old: &crate::planes::policy::Rule, new: &crate::planes::policy::Rule| {
        (&old.name, old.pass, &old.service) == (&new.name, new.pass, &new.service)
    };
    let planes = before.planes.iter().zip(&after.planes);
    let mut planes = planes.map(|(old, new)| {
        old.name == new.name
            && old.prefixes == new.prefixes
            && new.rules.len() == old.rules.len() + own(&old.name)
            && old
                .rules
                .iter()
                .zip(&new.rules)
                .all(|(old, new)| same(old, new))
    });
    let crosses = proposal.rules.iter().filter(|rule| rule.cross.is_some());
    before.planes.len() == after.planes.len()
        && planes.all(|fits| fits)
        && after.crosses.len() == before.crosses.len() + crosses.count()
        && before.sets.len() == after.sets.len()
        && before.floor.is_some() == after.floor.is_some()
}

/// What was left out, and what is not known, as comments.
pub fn remarks(proposal: &Proposal, untold: u64) -> String {
    let mut text = String::new();
    let seen = proposal.seen;
    let _ = writeln!(
        text,
        "# Learned from {seen} packets that would have been dropped."
    );
    if untold > 0 {
        let _ = writeln!(
            text,
            "# {untold} more would have been, and were not looked at: at most {} in a second on \
             each CPU are.",
            kldtrace_abi::plane::count::TOLD_PER_SECOND
        );
    }
    for (why, packets) in &proposal.left {
        let _ = writeln!(
            text,
            "# No rule is proposed for {packets} packets: {}.",
            why.words()
        );
    }
    text
}
