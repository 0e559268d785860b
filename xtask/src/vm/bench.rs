//! `cargo xtask vm --bench`: what probes cost in a guest, against each other.
//!
//! Where the guest's clock counts instructions, so do these numbers: they
//! leave out what caches and pipelines do on hardware, and come out the same
//! each time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use super::matrix::Cell;

/// What runs in the guest.
pub const SCRIPT: &str = include_str!("bench.sh");

/// Sides in the order of the table, and what they are.
const SIDES: [(&str, &str); 4] = [
    ("nothing", "nothing attached"),
    ("empty", "empty programs at entry and return of a read"),
    ("bpftrace", "bpftrace, latency of reads only"),
    ("kldtrace", "kldtrace, all of `zfs.*`"),
];

/// The table in Markdown, from the lines `SIDE NS_OF_A_READ NS_OF_A_SYNC`.
///
/// # Errors
/// When a side is missing.
pub fn table(cell: &Cell, lines: &[String]) -> Result<String> {
    let mut sides: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
    for line in lines {
        let words: Vec<_> = line.split_whitespace().collect();
        let [side, read, sync] = words[..] else {
            continue;
        };
        if let (Ok(read), Ok(sync)) = (read.parse(), sync.parse()) {
            sides.entry(side).or_default().push([read, sync]);
        }
    }
    let median = |side: &str, what: usize| -> Result<f64> {
        let rounds = sides
            .get(side)
            .with_context(|| format!("no round of {side}"))?;
        let mut all: Vec<_> = rounds.iter().map(|round| round[what]).collect();
        all.sort_by(f64::total_cmp);
        Ok(all[all.len() / 2])
    };
    let rounds = sides.values().map(Vec::len).max().unwrap_or(0);
    if rounds == 0 {
        bail!("the guest measured nothing");
    }
    let (read, sync) = (median("nothing", 0)?, median("nothing", 1)?);
    let mut table = format!(
        "Emulated guest, {cell}; medians of {rounds} rounds; ns for each, and throughput against nothing attached.\n\n\
         | side | cached read of 4 KiB | more | throughput | write and fsync | throughput |\n\
         |---|---|---|---|---|---|\n"
    );
    for (side, what) in SIDES {
        let (a, b) = (median(side, 0)?, median(side, 1)?);
        writeln!(
            table,
            "| {what} | {a:.0} | {:.0} | {:.3} | {b:.0} | {:.3} |",
            a - read,
            read / a,
            sync / b
        )?;
    }
    Ok(table)
}
