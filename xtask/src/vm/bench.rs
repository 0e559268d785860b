//! `cargo xtask vm --bench`: what probes cost in a guest, against each other.
//!
//! Where the guest's clock counts instructions, so do these numbers: they
//! leave out what caches and pipelines do on hardware, and come out the same
//! each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::matrix::Cell;
use crate::{daemon, sh};

/// What runs in the guest.
pub const SCRIPT: &str = include_str!("bench.sh");

/// Sides in the order of the table, and what they are.
const SIDES: [(&str, &str); 5] = [
    ("nothing", "nothing attached"),
    ("empty", "empty programs at entry and return of a read"),
    ("bpftrace", "bpftrace, latency of reads only"),
    ("kldtrace", "kldtrace, all of `zfs.*`"),
    // Only with a program of that name: `--with FOLDER/kldtrace`.
    ("other", "the other kldtrace, all of `zfs.*`"),
];
/// What is measured on each side, in the order of the columns.
const LOADS: [&str; 3] = [
    "cached read of 4 KiB",
    "write of 4 KiB and fsync",
    "the same, 1 ms a write of the disk",
];

/// What runs there, as people run it: on the guest's one processor the
/// instructions of the daemon and of the load itself are in the numbers.
///
/// # Errors
/// When it does not build.
pub fn programs() -> Result<Vec<PathBuf>> {
    sh::run(sh::cargo().args(["build", "--release", "--package", "xtask"]))?;
    [daemon::build()?, sh::target_dir().join("release/xtask")]
        .iter()
        .map(|path| {
            path.canonicalize()
                .with_context(|| format!("no {}", path.display()))
        })
        .collect()
}

/// The table in Markdown, from a line for each side and round: its name, and
/// the nanoseconds that one of each load took.
///
/// # Errors
/// When there is no round with nothing attached.
pub fn table(cell: &Cell, lines: &[String]) -> Result<String> {
    let mut sides: BTreeMap<&str, Vec<[f64; LOADS.len()]>> = BTreeMap::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let Some(side) = words.next() else { continue };
        let numbers: Option<Vec<f64>> = words.map(|word| word.parse().ok()).collect();
        if let Some(Ok(round)) = numbers.map(TryInto::try_into) {
            sides.entry(side).or_default().push(round);
        }
    }
    let median = |rounds: &[[f64; LOADS.len()]], load: usize| {
        let mut all: Vec<_> = rounds.iter().map(|round| round[load]).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let nothing = sides
        .get("nothing")
        .context("the guest measured nothing with nothing attached")?;
    let mut table = format!(
        "Emulated guest, {cell}; medians of {} rounds, of reads of seven times in each; ns for each, how many more than with \
         nothing attached, and throughput against that.\n\n| side |",
        nothing.len()
    );
    for load in LOADS {
        write!(table, " {load} | more | throughput |")?;
    }
    table.push_str("\n|---|");
    table.push_str(&"---|---|---|".repeat(LOADS.len()));
    table.push('\n');
    for (side, what) in SIDES {
        let Some(rounds) = sides.get(side) else {
            continue;
        };
        write!(table, "| {what} |")?;
        for load in 0..LOADS.len() {
            let (base, took) = (median(nothing, load), median(rounds, load));
            write!(
                table,
                " {took:.0} | {:.0} | {:.3} |",
                took - base,
                base / took
            )?;
        }
        table.push('\n');
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::super::matrix::CELLS;
    use super::*;

    #[test]
    fn sides_that_were_not_measured_have_no_row() {
        let said = "nothing 100 200 300\nkldtrace 200 400 300\nnothing 102 200 300\n\
                    noise 1\nnothing 90 200 300\n";
        let lines: Vec<_> = said.lines().map(str::to_owned).collect();
        let table = table(&CELLS[0], &lines).unwrap();
        let rows: Vec<_> = table.lines().skip(4).collect();
        assert_eq!(
            rows,
            [
                "| nothing attached | 100 | 0 | 1.000 | 200 | 0 | 1.000 | 300 | 0 | 1.000 |",
                "| kldtrace, all of `zfs.*` | 200 | 100 | 0.500 | 400 | 200 | 0.500 | 300 | 0 | 1.000 |",
            ]
        );
        assert!(super::table(&CELLS[0], &lines[1..2]).is_err());
    }
}
