//! `kldtrace export`: files for the systems that kldtrace reports to.

mod alertmanager;
mod alerts;
mod all;
mod check;
mod dashboards;
mod grafana;
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
    /// Dashboards for Grafana
    Dashboards(dashboards::Arguments),
    /// Dashboards, data sources and a configuration for Grafana
    Grafana(grafana::Arguments),
    /// All of it, each in a folder of its own
    All(Box<all::Arguments>),
    /// Have promtool and amtool read what was written
    Check(check::Arguments),
}

/// Writes the files.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.what {
        What::Prometheus(arguments) => prometheus::run(arguments),
        What::Alerts(arguments) => alerts::run(arguments),
        What::Alertmanager(arguments) => alertmanager::run(arguments),
        What::Dashboards(arguments) => dashboards::run(arguments),
        What::Grafana(arguments) => grafana::run(arguments),
        What::All(arguments) => all::run(arguments),
        What::Check(arguments) => check::run(arguments),
    }
}
