//! `kldtrace export alerts`: rules for Prometheus.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::settings::{self, Matching, Runbooks, Settings};
use crate::bundle::{self, values::Values};

/// Arguments of `kldtrace export alerts`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export alerts /etc/prometheus/rules
  kldtrace export alerts --list
  kldtrace export alerts /etc/prometheus/rules --set zfs_zil_commit_seconds=0.2 \\
      --match 'job=\"kldtrace\", cluster=\"west\"'
  promtool check rules /etc/prometheus/rules/kldtrace-*.yml")]
pub struct Arguments {
    /// Folder to write kldtrace-zfs.yml and the others to
    #[arg(required_unless_present = "list")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    matching: Matching,
    #[command(flatten)]
    runbooks: Runbooks,
    #[command(flatten)]
    settings: Settings,
}

/// Writes the files, or lists their settings.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let values = Values::new(&arguments.settings.set)?
        .with_selector(&arguments.matching.selector)?
        .with_runbooks(&arguments.runbooks.url)?;
    settings::export(
        bundle::RULES,
        &values,
        &arguments.settings,
        arguments.dir.as_deref(),
        "kldtrace export alerts",
    )
}
