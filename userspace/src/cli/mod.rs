//! The command line: one file for one subcommand.

pub mod bench_empty;
pub mod client;
pub mod config;
pub mod daemon;
pub mod docs;
pub mod doctor;
pub mod latency;
pub mod log;

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  kldtrace latency sched                   what the scheduler does to tasks, live
  kldtrace latency block --by device,op    block devices, reads and writes apart
  kldtrace latency tcp --by unit --duration 10s --json
  kldtrace doctor                          what this kernel serves, and what not and why
  kldtrace daemon --config /etc/kldtrace.toml
  kldtrace config --example                every setting with its default";

/// Sees where the time goes on a Linux node: scheduler, TCP, block devices.
#[derive(Debug, Parser)]
#[command(name = "kldtrace", version, about, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show latencies live: quantiles and a histogram
    Latency(latency::Arguments),
    /// Say what is measured, by which hook, at what cost, and what is not and why
    Doctor(doctor::Arguments),
    /// Measure all the time and serve Prometheus and this tool
    Daemon(daemon::Arguments),
    /// Show or check a configuration
    Config(config::Arguments),
    /// Write the signal reference, the man page or completions
    Docs(docs::Arguments),
    /// Attach a program that does nothing, until standard input ends
    #[command(hide = true)]
    BenchEmpty,
}

/// Where a running daemon is asked.
#[derive(Clone, Debug, Args)]
pub struct DaemonAddress {
    /// Socket of the running daemon
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/kldtrace/kldtrace.sock"
    )]
    pub socket: PathBuf,
    /// Do not ask the daemon: attach what is needed, for as long as it is needed
    #[arg(long)]
    pub attach: bool,
}

/// Tells what failed. Whoever reads a pipe no longer has seen enough.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let closed = error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
    if !closed {
        let _ = writeln!(std::io::stderr(), "kldtrace: {error:#}");
    }
    ExitCode::FAILURE
}

/// BPF wants root, or the capabilities that `loader` names.
///
/// # Errors
/// For everybody else, before anything is attempted.
pub fn require_root() -> anyhow::Result<()> {
    // SAFETY: geteuid has no preconditions.
    if unsafe { libc::geteuid() } == 0 {
        return Ok(());
    }
    anyhow::bail!(
        "attaching probes needs root: run it with sudo, or ask a running daemon (its socket is for root and its group)"
    )
}
