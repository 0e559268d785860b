//! `kldtrace bench-empty`: the floor of the benchmark.

use std::{io::Read as _, process::ExitCode};

use crate::kernel::loader;

/// Attaches the empty program to `sched_switch` until standard input ends.
pub fn run() -> anyhow::Result<ExitCode> {
    super::require_root()?;
    let floor = loader::load_empty()?;
    // Whatever comes: only the end counts.
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(floor);
    Ok(ExitCode::SUCCESS)
}
