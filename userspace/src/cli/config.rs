//! `kldtrace config`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::{config::Config, selection};

/// Arguments of `kldtrace config`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace config --example > /etc/kldtrace.toml
  kldtrace config --check /etc/kldtrace.toml")]
#[group(required = true, multiple = false)]
pub struct Arguments {
    /// Print every setting with its default
    #[arg(long)]
    example: bool,
    /// Check a file; errors name their line
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
}

/// Prints or checks.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if let Some(path) = &arguments.check {
        Config::load(path, selection::names())?;
        writeln!(out, "{}: ok", path.display())?;
    } else if arguments.example {
        write!(out, "{}", Config::example())?;
    }
    Ok(ExitCode::SUCCESS)
}
