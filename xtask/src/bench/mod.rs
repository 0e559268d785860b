//! `cargo xtask bench`: kldtrace and its peers in turn, on the same loads, in
//! one run.
//!
//! The sides alternate, round by round, so that a machine that gets slower
//! meanwhile does so for all of them; medians are compared. No time is ever
//! asserted: the table shows the goals, and the exit status does not.

mod exporters;
mod kernel_cost;
mod machine;
mod planes;
mod programs;
mod rest;
mod row;
mod scrape;
mod series;
mod side;
mod stats;
mod throughput;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::interrupt::Interrupt;
use crate::setup::{self, Goal};
use crate::{daemon, sh};
use row::Row;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    /// Print JSON.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print Markdown, ready for docs/.
    #[arg(long)]
    markdown: bool,
    /// Only this measurement; may be repeated.
    #[arg(long, value_enum)]
    only: Vec<Name>,
    /// Rounds, in each of which every side runs once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Seconds of load for one side in one round.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Measure this kldtrace, and build none.
    #[arg(long, value_name = "FILE")]
    kldtrace: Option<PathBuf>,
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Kernel time for a wake-up plus switch, against runqlat.
    RunQueue,
    /// Kernel time for a block request, against biolatency.
    Block,
    /// Kernel time of each TCP program, against an empty one.
    Tcp,
    /// Round trips of a pinned ping-pong with everything attached.
    Throughput,
    /// Memory and CPU time of the daemon at rest, and its start.
    Rest,
    /// Time of a scrape, by format.
    Scrape,
    /// Time and size of a scrape's body, by its number of series.
    Bodies,
    /// What 20,000 events a second cost on their way to Loki.
    Push,
    /// What a line of the journal costs on its way into the spool.
    Journal,
    /// What evaluating the alert rules costs a Prometheus with 500 nodes.
    Rules,
    /// A packet under a policy of planes, against xdp-filter and nftables.
    Planes,
}

/// What every measurement needs.
struct Bench {
    kldtrace: PathBuf,
    /// Configurations, logs and load files; on a disk, not in memory.
    dir: PathBuf,
    rounds: u32,
    load: Duration,
    interrupt: Interrupt,
}

impl Bench {
    /// Says what happens now, as it takes minutes.
    fn say(&self, what: &str, round: u32, side: &str) -> Result<()> {
        eprintln!(
            "bench: {what}, round {} of {}: {side}",
            round + 1,
            self.rounds
        );
        self.interrupt.check()
    }

    /// Runs one of our loads to its end and returns what it did in a second.
    fn run_load(&self, load: &[&str]) -> Result<f64> {
        let seconds = self.load.as_secs().to_string();
        let program = std::env::current_exe().context("cannot find xtask itself")?;
        let output = Command::new(program)
            .arg("bench-load")
            .args(load)
            .args(["--seconds", &seconds])
            .current_dir(&self.dir)
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("cannot start the load {load:?}"))?;
        self.interrupt.check()?;
        if !output.status.success() {
            bail!("the load {load:?} ended with {}", output.status);
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        number.with_context(|| format!("the load {load:?} printed no number: {text}"))
    }
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<ExitCode> {
    setup::prepare(Goal::Bench, "bench")?;
    let kldtrace = match &args.kldtrace {
        Some(file) => fs::canonicalize(file).with_context(|| file.display().to_string())?,
        None => daemon::build()?,
    };
    if daemon::is_running() {
        bail!("a daemon is running and would be part of every load: stop it first");
    }
    let dir = sh::target_dir().join("bench");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let bench = Bench {
        kldtrace,
        dir,
        rounds: args.rounds,
        load: Duration::from_secs(args.seconds),
        interrupt: Interrupt::catch()?,
    };
    let mut rows = Vec::new();
    for name in Name::value_variants() {
        if args.only.is_empty() || args.only.contains(name) {
            rows.extend(measure(&bench, *name)?);
        }
    }
    let machine = machine::describe(args.rounds, args.seconds)?;
    if args.json {
        println!("{:#}", row::json(&machine, &rows));
    } else if args.markdown {
        print!("{}", row::markdown(&machine, &rows));
    } else {
        print!("{}", row::text(&machine, &rows));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(bench: &Bench, name: Name) -> Result<Vec<Row>> {
    match name {
        Name::RunQueue => kernel_cost::run_queue(bench).context("run queue"),
        Name::Block => kernel_cost::block(bench).context("block"),
        Name::Tcp => kernel_cost::tcp(bench).context("TCP"),
        Name::Throughput => throughput::measure(bench).context("throughput"),
        Name::Rest => rest::measure(bench).context("daemon at rest"),
        Name::Scrape => scrape::measure(bench).context("scrape"),
        Name::Bodies => exporters::bodies(bench).context("bodies of scrapes"),
        Name::Push => exporters::push(bench).context("push"),
        Name::Journal => exporters::journal(bench).context("journal"),
        Name::Rules => exporters::rules(bench).context("rules"),
        Name::Planes => planes::measure(bench).context("planes"),
    }
}
