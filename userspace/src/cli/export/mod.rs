//! `kldtrace export`: files for the systems that kldtrace reports to.

mod prometheus;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Arguments of `kldtrace export`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A scrape configuration for Prometheus, and the nodes to scrape
    Prometheus(prometheus::Arguments),
}

/// Writes the files.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Prometheus(arguments) => prometheus::run(arguments),
    }
}
