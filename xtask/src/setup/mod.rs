//! `cargo xtask setup`: what building, testing and measuring needs.
//!
//! Every step looks first, says what is there, installs only what is not, and
//! says how long that took. A second run changes nothing. All of it goes to
//! stderr, so that `cargo xtask run -- … --json | jq` stays usable.

mod debian;
mod kernel;
mod rotel;
mod rust;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::unistd::Uid;

use crate::sh;

/// Options of `cargo xtask setup`.
#[derive(clap::Args)]
pub struct Args {
    /// What to prepare for; each includes the one before it.
    #[arg(long = "for", value_enum, default_value_t = Goal::Build)]
    goal: Goal,
}

/// What a machine is prepared for; each includes the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Goal {
    /// Build and run kldtrace.
    Build,
    /// Run guests.
    Guest,
    /// Run all checks and tests.
    Test,
    /// Measure against peers.
    Bench,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<ExitCode> {
    prepare(args.goal, "setup")?;
    Ok(ExitCode::SUCCESS)
}

/// Brings the machine to where `goal` can be reached; `command` is what the
/// user typed after `cargo xtask`.
pub fn prepare(goal: Goal, command: &str) -> Result<()> {
    require_root(command)?;
    let start = Instant::now();
    debian::install(goal)?;
    rust::toolchain()?;
    rust::programs(goal)?;
    rotel::install(goal);
    kernel::tracefs()?;
    say("done", "nothing is missing", start);
    Ok(())
}

/// Installs a Debian package for a program or another file, where that is not
/// there.
pub fn need(file: &str, package: &str) -> Result<()> {
    if sh::find(file).is_some() {
        return Ok(());
    }
    debian::add(package)
}

/// Fails before anything is attempted, and says what to type.
fn require_root(command: &str) -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    bail!(
        "`cargo xtask {command}` needs root: it installs Debian packages and loads eBPF programs \
         into the kernel. Nothing was attempted.\n\
         Type: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {command}\n\
         or, in a root shell that has rustup: cargo xtask {command}"
    )
}

/// One step: what it is, how it came out, how long it took.
fn say(step: &str, outcome: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("setup: {step}: {outcome} ({seconds:.1} s)");
}

/// Installs with `install`, announced by `plan`, and says how long it took.
fn installing(step: &str, plan: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    eprintln!("setup: {step}: {plan} …");
    install().with_context(|| format!("setup: {step}"))?;
    say(step, "installed", start);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_include_each_other() {
        assert!(Goal::Build < Goal::Guest && Goal::Guest < Goal::Test && Goal::Test < Goal::Bench);
    }
}
