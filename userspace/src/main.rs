//! The `kldtrace` command.

use std::process::ExitCode;

use clap::Parser as _;
use kldtrace::cli::{self, Command};

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match cli.command {
        Command::Latency(arguments) => cli::latency::run(arguments),
        Command::Events(arguments) => cli::events::run(&arguments),
        Command::Doctor(arguments) => cli::doctor::run(&arguments),
        Command::Daemon(arguments) => cli::daemon::run(&arguments),
        Command::Config(arguments) => cli::config::run(&arguments),
        Command::Planes(arguments) => cli::planes::run(&arguments),
        Command::Export(arguments) => cli::export::run(&arguments),
        Command::Docs(arguments) => cli::docs::run(&arguments),
        Command::BenchEmpty => cli::bench_empty::run(),
    };
    result.unwrap_or_else(|error| cli::fail(&error))
}
