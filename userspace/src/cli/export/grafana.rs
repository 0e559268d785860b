//! `kldtrace export grafana`: dashboards and all that Grafana needs for them.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::settings::{self, Matching, Settings};
use crate::bundle::{dashboards, grafana, template::Bundle, values::Values, write};

/// Arguments of `kldtrace export grafana`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export grafana /etc/grafana/kldtrace --set grafana_url=https://grafana.example \\
      --set keycloak_url=https://keycloak.example --set prometheus_url=https://prometheus.example
  kldtrace export grafana --list
  grafana server --homepath /usr/share/grafana --config /etc/grafana/kldtrace/grafana.ini

Grafana is told the full path of the folder. No secret is written: files that
Grafana reads itself have them.")]
pub struct Arguments {
    /// Folder to write grafana.ini, provisioning/ and dashboards/ to
    #[arg(required_unless_present = "list")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    matching: Matching,
    #[command(flatten)]
    settings: Settings,
}

/// Writes the files, or lists their settings.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.dir {
        Some(dir) if !arguments.settings.list => {
            let values = Values::new(&arguments.settings.set)?
                .with_selector(&arguments.matching.selector)?;
            let files = files(values, dir, "kldtrace export grafana")?;
            write::write(dir, &files, arguments.settings.force)?;
        }
        _ => settings::list(Bundle::parse(grafana::FILES)?.settings())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Path below the folder, and text, of each file.
pub fn files(
    values: Values,
    folder: &Path,
    command: &str,
) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let values = values.with_folder(folder)?;
    let own = Bundle::parse(grafana::FILES)?.fill(&values)?;
    let own = settings::marked(command, own);
    let boards = settings::marked(command, dashboards::fill(&values)?);
    let below = |name| Path::new(grafana::DASHBOARDS).join(name);
    let boards = boards.into_iter().map(|(name, text)| (below(name), text));
    let own = own.into_iter().map(|(name, text)| (name.into(), text));
    Ok(own.chain(boards).collect())
}
