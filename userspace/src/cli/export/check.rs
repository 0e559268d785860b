//! `kldtrace export check`: whether the programs that it is for can read what
//! was written.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use clap::Args;

use crate::bundle::check::{self, Outcome};

/// Exit status when nothing is wrong, and a program was missing.
const UNKNOWN: u8 = 3;

/// Arguments of `kldtrace export check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export check /etc/kldtrace-bundle

Exit status: 0 all is right, 1 something is wrong, 3 nothing is wrong so far but
promtool (Debian: prometheus) or amtool (prometheus-alertmanager) is missing.")]
pub struct Arguments {
    /// Folder with files of kldtrace export, there or below
    dir: PathBuf,
}

/// Checks, and says of each file what came of it.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let checked = check::check(&arguments.dir)?;
    let mut out = std::io::stdout().lock();
    let mut code = 0;
    for one in &checked {
        let path = one.path.display();
        match &one.outcome {
            Outcome::Right => writeln!(out, "right      {path} ({})", one.by)?,
            Outcome::NotThere => {
                let program = one.by.split(' ').next().unwrap_or_default();
                writeln!(out, "unchecked  {path} ({program} is not there)")?;
                code = code.max(UNKNOWN);
            }
            Outcome::Wrong(words) => {
                writeln!(out, "wrong      {path} ({})", one.by)?;
                for line in words.lines() {
                    writeln!(out, "           {line}")?;
                }
            }
        }
    }
    if checked
        .iter()
        .any(|one| matches!(one.outcome, Outcome::Wrong(_)))
    {
        code = 1;
    }
    Ok(ExitCode::from(code))
}
