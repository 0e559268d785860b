//! `kldtrace export dashboards`: for a Grafana that is there already.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::settings::{self, Matching, Settings};
use crate::bundle::{
    dashboards, grafana,
    template::{Bundle, check_names},
    values::Values,
    write,
};

/// Arguments of `kldtrace export dashboards`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export dashboards /var/lib/grafana/dashboards
  kldtrace export dashboards . --match 'job=\"kldtrace\", cluster=\"west\"' \\
      --set prometheus_uid=mimir --set loki_uid=logs")]
pub struct Arguments {
    /// Folder to write kldtrace-zfs.json and the others to
    #[arg(required_unless_present = "list")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    matching: Matching,
    #[command(flatten)]
    settings: Settings,
}

/// Writes the files, or lists the settings that they have.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::parse(grafana::FILES)?;
    match &arguments.dir {
        Some(dir) if !arguments.settings.list => {
            let values = Values::new(&arguments.settings.set)?
                .with_selector(&arguments.matching.selector)?;
            check_names(&[&bundle], &values)?;
            let files = settings::marked("kldtrace export dashboards", dashboards::fill(&values)?);
            write::write(dir, &files, arguments.settings.force)?;
        }
        _ => {
            let names = bundle.settings().iter();
            settings::list(names.filter(|one| one.name.ends_with("_uid")))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
