//! `kldtrace export`: files for the systems that kldtrace reports to.

mod alertmanager;
mod alerts;
mod prometheus;
mod settings;

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
    /// Alert and recording rules for Prometheus
    Alerts(alerts::Arguments),
    /// A configuration for Alertmanager: who is told what, and when
    Alertmanager(alertmanager::Arguments),
}

/// Writes the files.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Prometheus(arguments) => prometheus::run(arguments),
        What::Alerts(arguments) => alerts::run(arguments),
        What::Alertmanager(arguments) => alertmanager::run(arguments),
    }
}
