//! `kldtrace planes`.

mod change;
mod learn;
mod status;

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::planes::{
    check::{self, Session},
    compile, explain,
    host::Host,
    nft,
    policy::Policy,
    read,
    roots::Roots,
};

/// Where the policy of a node lies.
const POLICY: &str = "/etc/kldtrace/planes.toml";

/// Arguments of `kldtrace planes`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace planes check /etc/kldtrace/planes.toml
  kldtrace planes diff                            what applying would change
  kldtrace planes apply --confirm 60              back in a minute, unless
  kldtrace planes confirm                         says that you are still in
  kldtrace planes status
  kldtrace planes panic-open --yes                let everything pass, now
  kldtrace planes explain --in wg-storage --packet 'tcp 10.252.0.9:4000 > 10.251.0.2:2049'")]
pub struct Arguments {
    /// Keep all in the folders `bpf` and `state` of this one
    #[arg(long, value_name = "DIR", hide = true, global = true)]
    root: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Enforce a policy, in place of the one before, without a gap
    Apply(change::Apply),
    /// Keep the policy that was applied with --confirm
    Confirm,
    /// Go back to the policy before
    Rollback,
    /// Show what applying a policy would change; ends with 1 if that is something
    Diff {
        /// The policy
        #[arg(default_value = POLICY)]
        file: PathBuf,
    },
    /// Show what is applied, what it has done, and what is wrong; ends with 1 if something is
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Break the glass: let everything pass until a policy is applied again
    PanicOpen {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Put what was applied into the kernel: after a start of the machine, or a new version
    Restore,
    /// Follow interfaces, and take back what nobody confirms, as the daemon does
    Watch,
    /// Wait until a policy is confirmed, and take it back if it is not
    #[command(hide = true)]
    Guard {
        /// The policy
        generation: u32,
    },
    /// Read a policy, and say what is wrong with it or will surprise
    Check {
        /// The policy
        #[arg(default_value = POLICY)]
        file: PathBuf,
    },
    /// Say what becomes of a first packet, and by which rule
    Explain {
        /// The policy
        #[arg(long, value_name = "FILE", default_value = POLICY)]
        policy: PathBuf,
        /// The plane that it arrives on, by its name or an interface
        #[arg(long = "in", value_name = "PLANE")]
        arrives: String,
        /// The packet, as 'tcp 10.252.0.9:4000 > 10.251.0.2:2049'
        #[arg(long, value_name = "PACKET")]
        packet: String,
    },
    /// Propose rules for what was dropped, or would have been
    Learn(learn::Arguments),
}

/// Checks, explains or learns. A policy with grave findings, and a packet that does not
/// pass, end in failure, for scripts.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let roots = arguments.root.as_deref().map(Roots::under);
    let roots = roots.unwrap_or_default();
    match &arguments.what {
        What::Apply(apply) => change::apply(&roots, arguments.root.as_deref(), apply),
        What::Confirm => change::confirm(&roots),
        What::Rollback => change::roll_back(&roots),
        What::Diff { file } => status::diff(&roots, file),
        What::Status { json } => status::status(&roots, *json),
        What::PanicOpen { yes } => change::panic_open(&roots, *yes),
        What::Restore => change::restore(&roots),
        What::Watch => change::watch(&roots),
        What::Guard { generation } => change::guard(&roots, *generation),
        What::Check { file } => run_check(file),
        What::Explain {
            policy,
            arrives,
            packet,
        } => run_explain(policy, arrives, packet),
        What::Learn(arguments) => learn::run(&roots, arguments),
    }
}

fn run_check(file: &Path) -> anyhow::Result<ExitCode> {
    let policy = read::load(file)?;
    let name = file.display().to_string();
    let mut out = std::io::stdout().lock();
    if look_at(&mut out, &policy, &name)? {
        return Ok(ExitCode::FAILURE);
    }
    let rules: usize = policy.planes.iter().map(|plane| plane.rules.len()).sum();
    writeln!(
        out,
        "{name}: ok: {} planes, {} rules, {} between planes",
        policy.planes.len(),
        rules,
        policy.crosses.len()
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Writes what a check finds, and says whether something of it is grave.
fn look_at(out: &mut impl Write, policy: &Policy, name: &str) -> anyhow::Result<bool> {
    let session = std::env::var("SSH_CONNECTION").ok();
    let session = session.as_deref().and_then(Session::parse);
    let mut findings =
        check::check(policy, &interfaces()?, session).with_context(|| name.to_owned())?;
    match nft::check_here(policy) {
        Ok(found) => findings.extend(found),
        Err(why) => writeln!(out, "{name}: note: nftables was not checked: {why}")?,
    }
    findings.sort();
    for finding in &findings {
        let kind = if finding.grave { "error" } else { "warning" };
        writeln!(out, "{name}:{}: {kind}: {}", finding.line, finding.message)?;
    }
    Ok(findings.iter().any(|finding| finding.grave))
}

fn run_explain(file: &Path, arrives: &str, packet: &str) -> anyhow::Result<ExitCode> {
    let policy = read::load(file)?;
    let number = plane(&policy, arrives)?;
    let facts = explain::packet(packet).map_err(anyhow::Error::msg)?;
    let compiled = compile::image(&policy, 1).with_context(|| file.display().to_string())?;
    let outcome = Host::new(compiled.cells.clone()).judge(number, &facts);
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", explain::told(&outcome, &compiled))?;
    Ok(if outcome.action == kldtrace_abi::plane::Action::Pass {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The number of a plane that is named by itself or one of its interfaces.
fn plane(policy: &Policy, name: &str) -> anyhow::Result<u8> {
    let planes = || policy.planes.iter();
    let named = planes().position(|plane| plane.name == name);
    let place = named.or_else(|| {
        planes().position(|plane| {
            let mut patterns = plane.interfaces.iter();
            patterns.any(|pattern| crate::words::matches(pattern, name))
        })
    });
    let place = place.with_context(|| {
        let all: Vec<_> = planes().map(|plane| plane.name.as_str()).collect();
        let hint = crate::words::did_you_mean(name, all.iter().copied());
        format!(
            "no plane or interface {name:?}{hint}; the policy has {}",
            all.join(", ")
        )
    })?;
    Ok(policy.planes[place].number)
}

/// The interfaces of this network namespace.
fn interfaces() -> anyhow::Result<Vec<String>> {
    let all = fs::read_dir("/sys/class/net").context("cannot list interfaces in /sys/class/net")?;
    let names = all
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.collect())
}
