//! The command line: one file for one subcommand.

pub mod bench_empty;
pub mod client;
pub mod config;
pub mod daemon;
pub mod docs;
pub mod doctor;
pub mod events;
pub mod export;
pub mod latency;
pub mod log;
pub mod planes;
mod stop;

use std::{
    io::{ErrorKind, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

const EXAMPLES: &str = "\
Examples:
  kldtrace latency sched                   what the scheduler does to tasks, live
  kldtrace latency block --by device,op    block devices, reads and writes apart
  kldtrace latency tcp --by unit --duration 10s --json
  kldtrace events zfs --follow             slow operations, with where their time went
  kldtrace latency zfs --explain           where the time of slow operations went
  kldtrace doctor                          what this kernel serves, and what not and why
  kldtrace daemon --config /etc/kldtrace.toml
  kldtrace config --example                every setting with its default
  kldtrace planes check planes.toml        what a policy of the node's networks would do";

/// Sees where the time goes on a Linux node: scheduler, TCP, block devices, ZFS,
/// WireGuard; and keeps its networks apart.
#[derive(Debug, Parser)]
#[command(name = "kldtrace", version, after_help = EXAMPLES, max_term_width = 100)]
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
    /// Show what happened: slow operations and other rare facts
    Events(events::Arguments),
    /// Say what is measured, by which hook, at what cost, and what is not and why
    Doctor(doctor::Arguments),
    /// Measure all the time and serve Prometheus and this tool
    Daemon(daemon::Arguments),
    /// Show or check a configuration
    Config(config::Arguments),
    /// Enforce a policy on the node's networks, check it and explain it
    Planes(planes::Arguments),
    /// Write files for the systems that kldtrace reports to
    Export(export::Arguments),
    /// Write the signal reference, the man page or completions
    Docs(docs::Arguments),
    /// Attach a program that does nothing, until standard input ends
    #[command(hide = true)]
    BenchEmpty,
}

/// Where a running daemon is asked.
#[derive(Clone, Debug, Args)]
pub struct DaemonAddress {
    /// Socket of the running daemon [default: /run/kldtrace/kldtrace.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Do not ask the daemon: attach what is needed, for as long as it is needed
    #[arg(long)]
    pub attach: bool,
}

impl DaemonAddress {
    /// The daemon to ask about a subject; `None`: attach.
    ///
    /// # Errors
    /// When a socket was named and nobody listens there, or this user may not
    /// ask.
    pub fn daemon(&self, subject: &'static str) -> anyhow::Result<Option<client::Client>> {
        if self.attach {
            return Ok(None);
        }
        let usual = Config::default().listen.socket;
        let socket = self.socket.as_ref().unwrap_or(&usual);
        let daemon = client::Client::find(socket, subject)?;
        if daemon.is_none() && self.socket.is_some() {
            anyhow::bail!("no daemon listens at {}", socket.display());
        }
        Ok(daemon)
    }
}

/// Tells what failed. Whoever no longer reads a pipe has seen enough: that is
/// no failure.
pub fn fail(error: &anyhow::Error) -> ExitCode {
    let closed = |kind| kind == Some(ErrorKind::BrokenPipe);
    let closed = error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        let json = cause.downcast_ref::<serde_json::Error>();
        closed(io.map(std::io::Error::kind))
            || closed(json.and_then(serde_json::Error::io_error_kind))
    });
    if closed {
        return ExitCode::SUCCESS;
    }
    let _ = writeln!(std::io::stderr(), "kldtrace: {error:#}");
    ExitCode::FAILURE
}

/// BPF wants root, or the capabilities that `loader` names.
///
/// # Errors
/// For everybody else, before anything is attempted.
pub fn require_root() -> anyhow::Result<()> {
    // include/uapi/linux/capability.h
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_BPF: u64 = 1 << 39;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    if effective & (CAP_SYS_ADMIN | CAP_BPF) != 0 {
        return Ok(());
    }
    anyhow::bail!(
        "attaching probes needs root, or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN: run it with sudo, \
         or ask a running daemon (its socket is for root and its group)"
    )
}
