//! `kldtrace export prometheus`: a configuration to start Prometheus with.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode};

use anyhow::bail;
use clap::Args;

use crate::{
    bundle::{unit::is_time, write},
    config::Config,
    fleet::Fleet,
    selection,
};

/// Where Prometheus finds its scrape configuration.
const CONFIGURATION: &str = "prometheus.yml";
/// Where that finds the nodes; Prometheus sees when it changes.
const TARGETS: &str = "kldtrace-targets.json";

/// Arguments of `kldtrace export prometheus`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace export prometheus /etc/prometheus --config /etc/kldtrace.toml \\
      --ca ca.pem --certificate prometheus.pem --key prometheus.key
  kldtrace export prometheus . --discover https://node-1.example:9750/targets \\
      --alertmanager localhost:9093
  promtool check config prometheus.yml")]
pub struct Arguments {
    /// Folder to write prometheus.yml and kldtrace-targets.json to
    dir: PathBuf,
    #[command(flatten)]
    options: Options,
    /// Write over files that kldtrace did not write, or that were changed since
    #[arg(long)]
    force: bool,
}

/// What is scraped, how often and how, and who is told.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Configuration with [fleet] nodes and, for TLS, [listen] tls_certificate
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Have Prometheus ask there for the nodes, in place of reading a file
    #[arg(long, value_name = "URL")]
    discover: Option<String>,
    /// Authority of the nodes' certificates, as Prometheus finds it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Certificate that Prometheus shows
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// Its key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Alertmanager that is told of alerts, as HOST:PORT; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub alertmanager: Vec<String>,
    /// Time between scrapes, as Prometheus writes it
    #[arg(long, value_name = "TIME", default_value = "15s")]
    interval: String,
}

/// Writes both files.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let files = files(&arguments.options, "kldtrace export prometheus")?;
    write::write(&arguments.dir, &files, arguments.force)?;
    Ok(ExitCode::SUCCESS)
}

/// Name and text of both files.
pub fn files(arguments: &Options, command: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let config = match &arguments.config {
        Some(path) => Config::load(path, selection::names())?,
        None => Config::default(),
    };
    let fleet = Fleet::new(&config);
    if arguments.discover.is_none() && fleet.is_empty() {
        bail!("no node to scrape: name them under [fleet.nodes], or use --discover URL");
    }
    let secured = fleet.tls();
    if secured && arguments.ca.is_none() {
        bail!("the nodes speak TLS: say with --ca FILE whom Prometheus is to trust");
    }
    if secured && config.listen.tls_client_ca.is_some() && arguments.certificate.is_none() {
        bail!("the nodes ask for a certificate: say which with --certificate FILE --key FILE");
    }
    if !is_time(&arguments.interval) || arguments.interval.starts_with('0') {
        bail!(
            "--interval must be a time such as 15s or 1m, not {:?}",
            arguments.interval
        );
    }
    let text = configuration(arguments, secured);
    let text = write::marked(command, &text);
    let mut files = vec![(CONFIGURATION, text)];
    if arguments.discover.is_none() {
        let targets = serde_json::to_string_pretty(&fleet.targets())?;
        files.push((TARGETS, targets + "\n"));
    }
    Ok(files)
}

fn configuration(arguments: &Options, secured: bool) -> String {
    let mut text = format!(
        "# Start Prometheus with --enable-feature=native-histograms,exemplar-storage\n\
         # to have all buckets, and the events that belong to slow operations.\n\
         global:\n  scrape_interval: {interval}\n  evaluation_interval: {interval}\n\
         # From kldtrace export alerts, into this folder or rules/ in it.\n\
         rule_files: [kldtrace-*.yml, rules/kldtrace-*.yml]\n",
        interval = arguments.interval,
    );
    // JSON's strings are YAML's as well, whatever a name has in it.
    let quoted = |text: &dyn std::fmt::Display| serde_json::Value::from(text.to_string());
    if !arguments.alertmanager.is_empty() {
        let targets = serde_json::Value::from(arguments.alertmanager.clone());
        let _ = writeln!(
            text,
            "alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: {targets}"
        );
    }
    text.push_str("scrape_configs:\n  - job_name: kldtrace\n");
    if secured || arguments.ca.is_some() || arguments.certificate.is_some() {
        text.push_str("    scheme: https\n");
    }
    let tls = |indent: &str| {
        let files = [
            ("ca_file", &arguments.ca),
            ("cert_file", &arguments.certificate),
            ("key_file", &arguments.key),
        ];
        if files.iter().all(|(_, file)| file.is_none()) {
            return String::new();
        }
        let mut text = format!("{indent}tls_config:\n{indent}  min_version: TLS13\n");
        for (name, file) in files {
            if let Some(file) = file {
                let _ = writeln!(text, "{indent}  {name}: {}", quoted(&file.display()));
            }
        }
        text
    };
    text.push_str(&tls("    "));
    match &arguments.discover {
        Some(url) => {
            let _ = writeln!(text, "    http_sd_configs:\n      - url: {}", quoted(url));
            text.push_str(&tls("        "));
        }
        None => {
            let _ = writeln!(
                text,
                "    file_sd_configs:\n      - files: [{}]",
                quoted(&TARGETS)
            );
        }
    }
    text
}
