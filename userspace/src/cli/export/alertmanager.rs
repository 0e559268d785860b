//! `kldtrace export alertmanager`: who is told what, and when.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::settings::{self, Settings};
use crate::bundle::{self, values::Values};

/// Arguments of `kldtrace export alertmanager`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export alertmanager /etc/alertmanager --set smtp_host=mail.example:587 \\
      --set storage_email=storage@example.org
  kldtrace export alertmanager --list
  amtool check-config /etc/alertmanager/alertmanager.yml

No secret is written: files that Alertmanager reads itself have them.")]
pub struct Arguments {
    /// Folder to write alertmanager.yml and kldtrace.tmpl to
    #[arg(required_unless_present = "list")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// Writes the files, or lists their settings.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let values = Values::new(&arguments.settings.set)?;
    settings::export(
        bundle::ALERTMANAGER,
        &values,
        &arguments.settings,
        arguments.dir.as_deref(),
        "kldtrace export alertmanager",
    )
}
