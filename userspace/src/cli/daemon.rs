//! `kldtrace daemon`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{config::Config, daemon, selection};

/// Arguments of `kldtrace daemon`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace daemon                               all signals, 127.0.0.1:9750
  kldtrace daemon --config /etc/kldtrace.toml
  kill -HUP PID                                 read the configuration again
  curl -s 127.0.0.1:9750/metrics | grep runqueue")]
pub struct Arguments {
    /// Configuration file; without it, the defaults (kldtrace config --example)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the daemon until it is told to stop.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match &arguments.config {
        Some(path) => Config::load(path, selection::names())?,
        None => Config::default(),
    };
    super::require_root()?;
    super::log::start(config.log.level.as_str(), config.log.format)?;
    daemon::run(config, arguments.config.clone())?;
    Ok(ExitCode::SUCCESS)
}
