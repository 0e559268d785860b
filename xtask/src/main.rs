//! What developers of kldtrace type: `cargo xtask COMMAND`.
//!
//! One file for one command; this one is the table of contents.

mod bench;
mod bench_load;
mod daemon;
mod dashboards;
mod fuzz;
mod http;
mod interrupt;
mod pictures;
mod run;
mod setup;
mod sh;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, run, test and measure kldtrace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building, testing or measuring needs; safe to repeat.
    Setup(setup::Args),
    /// Set up, build and start kldtrace; arguments after `--` go to it.
    Run(run::Args),
    /// Set up and run all checks and tests.
    Test(test::Args),
    /// Run the tests that need ZFS or WireGuard, in emulated guests.
    Vm(vm::Args),
    /// Look for inputs that a parser cannot stand.
    Fuzz(fuzz::Args),
    /// Make the JSON of the dashboards, and read it as Grafana would.
    Dashboards,
    /// Draw the dashboards for the book, in Chromium.
    Pictures,
    /// Measure kldtrace and its peers in turn on the same loads.
    Bench(bench::Args),
    /// One of the loads that `bench` measures under.
    #[command(hide = true)]
    BenchLoad(bench_load::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Setup(args) => setup::main(&args),
        Command::Run(args) => run::main(&args),
        Command::Test(args) => test::main(&args),
        Command::Vm(args) => vm::main(&args),
        Command::Fuzz(args) => fuzz::main(&args),
        Command::Dashboards => dashboards::main(),
        Command::Pictures => pictures::main(),
        Command::Bench(args) => bench::main(&args),
        Command::BenchLoad(args) => bench_load::main(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
