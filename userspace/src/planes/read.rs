//! Reads a policy from its file.
//!
//! All that is wrong with a file is said at once, each with its line.

mod rule;
mod table;
pub mod value;

use std::{fs, io, path::Path};

use kldtrace_abi::plane::service::Always;
use toml::de::DeTable;

use self::{
    rule::Known,
    table::{Faults, Table},
};
use super::policy::{
    Cross, Floor, MAX_PLANES, MAX_PREFIXES, MAX_RULES, Plane, Policy, Prefix, Set,
};
use crate::config::ConfigError;

/// Largest policy that is read, in bytes (16 MiB).
pub const MAX_FILE: u64 = 16 << 20;
/// Largest file of prefixes that is read, in bytes (64 MiB).
pub const MAX_SET: u64 = 64 << 20;

/// How the files of sets are read: by their path.
pub type Files<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Reads a policy and the files of its sets.
///
/// # Errors
/// If the file cannot be read, is larger than [`MAX_FILE`] or is not UTF-8,
/// and as [`parse`].
pub fn load(path: &Path) -> Result<Policy, ConfigError> {
    let origin = path.display().to_string();
    let bytes = read_at_most(path, MAX_FILE)
        .map_err(|error| ConfigError::whole(&origin, format!("cannot be read: {error}")))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| ConfigError::whole(&origin, "not UTF-8, which TOML must be".to_owned()))?;
    parse(&text, &origin, &|path| read_at_most(path, MAX_SET))
}

/// Reads a file of at most so many bytes.
pub(super) fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    use io::Read as _;
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(most + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("larger than {} MiB", most >> 20)));
    }
    Ok(bytes)
}

/// Reads a policy from text, which messages call `origin`.
///
/// # Errors
/// For the first error of syntax, or else everything that is wrong.
pub fn parse(text: &str, origin: &str, files: Files<'_>) -> Result<Policy, ConfigError> {
    if text.len() as u64 > MAX_FILE {
        return Err(ConfigError::whole(origin, "larger than 16 MiB".to_owned()));
    }
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let message = error.message().replace('\n', "; ");
        ConfigError::at(origin, text, vec![(offset, message)])
    })?;
    let faults = Faults::new(text);
    let policy = policy(
        &Table::new("the policy", document.get_ref(), 0, &faults),
        files,
    );
    let found = faults.take();
    if found.is_empty() {
        return Ok(policy);
    }
    Err(ConfigError::at(origin, text, found))
}

fn policy(top: &Table<'_, '_>, files: Files<'_>) -> Policy {
    top.only(&["sets", "floor", "plane", "cross"]);
    let sets = sets(top, files);
    let tables = top.tables("plane", "[[plane]]");
    if tables.is_empty() {
        top.fault(top.offset, "no [[plane]]: nothing to enforce".to_owned());
    }
    if let Some(table) = tables.get(MAX_PLANES) {
        table.fault(table.offset, format!("more than {MAX_PLANES} planes"));
    }
    // Rules may name planes that stand behind them.
    let names: Vec<String> = tables.iter().map(Table::name).collect();
    let prefixes: Vec<Vec<Prefix>> = tables.iter().map(|table| own_prefixes(table)).collect();
    for (place, table) in tables.iter().enumerate() {
        let name = &names[place];
        if !name.is_empty() && names[..place].contains(name) {
            table.fault(table.offset, format!("a second plane {name:?}"));
        }
        if sets.iter().any(|set| set.name == *name) {
            let message = format!("{name:?} is a plane and a set: @{name} could be either");
            table.fault(table.offset, message);
        }
    }
    let known = Known {
        sets: &sets,
        names: &names,
        prefixes: &prefixes,
    };
    let planes = tables.iter().take(MAX_PLANES).enumerate();
    let planes: Vec<Plane> = planes
        .zip(1..)
        .map(|((place, table), number)| Plane {
            number,
            ..plane(table, &names[place], prefixes[place].clone(), &known)
        })
        .collect();
    let crosses = top.tables("cross", "[[cross]]");
    rule::unique_names(&crosses, None);
    let crosses: Vec<_> = crosses
        .iter()
        .filter_map(|table| cross(table, &known))
        .collect();
    let rules = planes.iter().map(|plane| plane.rules.len()).sum::<usize>() + crosses.len();
    if rules > MAX_RULES {
        top.fault(top.offset, format!("more than {MAX_RULES} rules"));
    }
    let floor = top.table("floor", "[floor]");
    let floor = floor.and_then(|table| floor_of(&table, &known));
    Policy {
        planes,
        crosses,
        floor,
        sets,
    }
}

/// The sets, whose files hold a prefix in each line; `#` and `;` begin
/// comments, as in the lists that are published.
fn sets(top: &Table<'_, '_>, files: Files<'_>) -> Vec<Set> {
    let mut left = MAX_PREFIXES;
    let Some(table) = top.table("sets", "[sets]") else {
        return Vec::new();
    };
    let mut sets = Vec::new();
    for (name, value) in table.entries() {
        let offset = value.span().start;
        let prefixes = match table.within(value, "a set") {
            Some(file) => {
                file.only(&["file"]);
                let path = file.text("file");
                path.and_then(|path| match files(Path::new(path)) {
                    Ok(bytes) => value::list(&String::from_utf8_lossy(&bytes))
                        .map_err(|message| file.fault(offset, format!("{path}:{message}")))
                        .ok(),
                    Err(error) => {
                        file.fault(offset, format!("{path}: cannot be read: {error}"));
                        None
                    }
                })
            }
            None => table.prefixes(name, &|_| None),
        };
        let prefixes = prefixes.unwrap_or_default();
        match left.checked_sub(prefixes.len()) {
            Some(rest) => left = rest,
            None => {
                table.fault(offset, format!("more than {MAX_PREFIXES} prefixes"));
                return sets;
            }
        }
        sets.push(Set {
            name: name.to_owned(),
            line: table.line(offset),
            prefixes,
        });
    }
    sets
}

fn own_prefixes(table: &Table<'_, '_>) -> Vec<Prefix> {
    table.prefixes("prefixes", &|_| None).unwrap_or_default()
}

fn plane(table: &Table<'_, '_>, name: &str, prefixes: Vec<Prefix>, known: &Known<'_>) -> Plane {
    table.only(&[
        "name",
        "interfaces",
        "prefixes",
        "default",
        "mode",
        "fragments",
        "other_frames",
        "always",
        "block",
        "rate",
        "burst",
        "syn_rate",
        "syn_burst",
        "wireguard",
        "rule",
    ]);
    let rules = table.tables("rule", "[[plane.rule]]");
    let wireguard = rule::wireguard(table, known);
    let taken = wireguard.as_ref().map(|guard| &guard.rule.name[..]);
    rule::unique_names(&rules, taken);
    let rules = rules.iter().map(|table| rule::rule(table, known, None));
    let always = table.words("always", &Always::ALL.map(|one| (one.as_str(), one)));
    Plane {
        name: name.to_owned(),
        number: 0,
        line: table.line(table.offset),
        interfaces: table.interfaces(),
        prefixes,
        pass: table
            .word("default", &[("drop", false), ("allow", true)])
            .unwrap_or(false),
        enforce: table
            .word("mode", &[("audit", false), ("enforce", true)])
            .unwrap_or(false),
        whole_only: table
            .word("fragments", &[("rules", false), ("drop", true)])
            .unwrap_or(false),
        other_frames: table
            .word("other_frames", &[("drop", false), ("pass", true)])
            .unwrap_or(false),
        always: always.unwrap_or_else(|| Always::ALL.to_vec()),
        block: rule::block(table, known),
        rate: table.rate("rate", "burst"),
        syn_rate: table.rate("syn_rate", "syn_burst"),
        wireguard,
        rules: rules.collect(),
    }
}

fn cross(table: &Table<'_, '_>, known: &Known<'_>) -> Option<Cross> {
    let plane = |key: &str| rule::plane(table, key, known);
    let (from, to) = (plane("from"), plane("to"));
    let at = [
        ("from", (true, false)),
        ("to", (false, true)),
        ("both", (true, true)),
    ];
    let (at_from, at_to) = table.word("at", &at).unwrap_or((true, false));
    let rule = rule::rule(table, known, Some(true));
    let (from, to) = (from?, to?);
    if from == to {
        table.fault(table.offset, "from and to are the same plane".to_owned());
    }
    Some(Cross {
        from,
        to,
        at_from,
        at_to,
        rule,
    })
}

fn floor_of(table: &Table<'_, '_>, known: &Known<'_>) -> Option<Floor> {
    table.only(&["plane", "sources", "ports"]);
    let plane = rule::plane(table, "plane", known);
    let sources = table.prefixes("sources", &|name| known.prefixes(name));
    let ports = table.ports("ports");
    let plane = plane?;
    let floor = Floor {
        sources: sources.unwrap_or_else(|| known.prefixes[plane].clone()),
        ports: ports.unwrap_or_else(|| vec![(22, 22)]),
        line: table.line(table.offset),
        plane,
    };
    if floor.sources.is_empty() {
        let message = "no sources, and its plane has no prefixes: nothing would be let in";
        table.fault(table.offset, message.to_owned());
        return None;
    }
    Some(floor)
}
