//! `kldtrace export all`: what Prometheus, Alertmanager, Loki and Grafana run
//! on, each in a folder of its own.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    grafana, prometheus,
    settings::{self, Matching, Runbooks, Settings},
};
use crate::bundle::{
    self,
    template::{Bundle, check_names},
    values::Values,
    write,
};

/// What the command is called in the files.
const COMMAND: &str = "kldtrace export all";
/// Who is told of alerts where nobody is named: the one of this bundle.
const ALERTMANAGER: &str = "localhost:9093";

/// Arguments of `kldtrace export all`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export all /etc/kldtrace-bundle --config fleet.toml --ca ca.pem \\
      --certificate prometheus.pem --key prometheus.key
  kldtrace export all --list
  kldtrace export check /etc/kldtrace-bundle")]
pub struct Arguments {
    /// Folder to write prometheus/, alertmanager/, loki/ and grafana/ to
    #[arg(required_unless_present = "list")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    prometheus: prometheus::Options,
    #[command(flatten)]
    matching: Matching,
    #[command(flatten)]
    runbooks: Runbooks,
    #[command(flatten)]
    settings: Settings,
}

/// Writes the files, or lists their settings.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bundles = Bundles::parse()?;
    match &arguments.dir {
        Some(dir) if !arguments.settings.list => {
            let values = Values::new(&arguments.settings.set)?
                .with_selector(&arguments.matching.selector)?
                .with_runbooks(&arguments.runbooks.url)?;
            check_names(&bundles.all(), &values)?;
            let files = files(arguments, &bundles, &values, dir)?;
            write::write(dir, &files, arguments.settings.force)?;
        }
        _ => settings::list(bundles.all().into_iter().flat_map(Bundle::settings))?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Bundles {
    rules: Bundle,
    alertmanager: Bundle,
    grafana: Bundle,
    loki: Bundle,
}

impl Bundles {
    fn parse() -> anyhow::Result<Self> {
        Ok(Self {
            rules: Bundle::parse(bundle::RULES)?,
            alertmanager: Bundle::parse(bundle::ALERTMANAGER)?,
            grafana: Bundle::parse(bundle::grafana::FILES)?,
            loki: Bundle::parse(bundle::grafana::LOKI)?,
        })
    }

    fn all(&self) -> [&Bundle; 4] {
        [&self.rules, &self.alertmanager, &self.grafana, &self.loki]
    }
}

fn files(
    arguments: &Arguments,
    bundles: &Bundles,
    values: &Values,
    dir: &Path,
) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut files = Vec::new();
    let mut add = |folder: &str, those: Vec<(&'static str, String)>| {
        let those = those.into_iter();
        files.extend(those.map(|(name, text)| (Path::new(folder).join(name), text)));
    };
    let mut options = arguments.prometheus.clone();
    if options.alertmanager.is_empty() {
        options.alertmanager.push(ALERTMANAGER.to_owned());
    }
    add("prometheus", prometheus::files(&options, COMMAND)?);
    for (folder, bundle) in [
        ("prometheus/rules", &bundles.rules),
        ("alertmanager", &bundles.alertmanager),
        ("loki", &bundles.loki),
    ] {
        let filled = bundle.fill(&values.of(bundle))?;
        add(folder, settings::marked(COMMAND, filled));
    }
    let folder = Path::new("grafana");
    let grafana = grafana::files(values.of(&bundles.grafana), &dir.join(folder), COMMAND)?;
    files.extend(
        grafana
            .into_iter()
            .map(|(name, text)| (folder.join(name), text)),
    );
    Ok(files)
}
