//! `kldtrace latency`.

use std::{io::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use kldtrace_exporters::model::{Event, Family, Kind};

use super::DaemonAddress;
use crate::{
    catalogue::{self, Signal, Subject},
    config::{Config, LogFormat, units},
    explain::{self, Quantile},
    kernel::{loader::Availability, modules},
    selection,
    signals::reader::Reader,
    view::{
        self, Screen,
        group::{Filter, Selection, Shown},
        hgrm,
        session::{self, Format, Source},
    },
    words::did_you_mean,
};

/// Arguments of `kldtrace latency`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace latency sched                              until Ctrl-C
  kldtrace latency sched.runqueue_latency --by unit   one signal, by unit
  kldtrace latency block --by device,op --duration 30s
  kldtrace latency tcp --filter unit=nginx.service --filter 'interface=wg-*'
  kldtrace latency block --duration 1m --hgrm block.hgrm
  kldtrace latency zfs --by vdev
  kldtrace latency zfs --explain --quantile p99.9 --filter 'dataset=rpool/*'
  kldtrace latency --list

Values of one label given twice mean either; * stands for any text. A running
daemon is asked; without one, just the probes that are needed are attached
for as long as this runs.")]
pub struct Arguments {
    /// sched, tcp, block, zfs, wireguard, or one signal of --list
    #[arg(required_unless_present = "list")]
    target: Option<String>,
    /// Label to tell apart; several: --by device,op
    #[arg(long, value_name = "LABEL", value_delimiter = ',')]
    by: Vec<String>,
    /// Show only what has this label value
    #[arg(long, value_name = "LABEL=VALUE")]
    filter: Vec<Filter>,
    /// Stop after this time: 10s, 5m
    #[arg(long, value_name = "TIME", value_parser = units::duration, allow_hyphen_values = true)]
    duration: Option<Duration>,
    /// Time between two looks
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1s", allow_hyphen_values = true)]
    interval: Duration,
    /// One JSON object for each interval
    #[arg(long)]
    json: bool,
    /// Write the percentiles for HdrHistogram's plotters at the end
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Say where the time went, for each dataset and operation (zfs only);
    /// measures for --duration, 10s unless it is given
    #[arg(long, conflicts_with_all = ["hgrm", "list"])]
    explain: bool,
    /// How slow the operations are that --explain looks at
    #[arg(
        long,
        value_name = "QUANTILE",
        default_value = "p99",
        requires = "explain"
    )]
    quantile: Quantile,
    /// List the targets and their signals
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    daemon: DaemonAddress,
}

/// Shows latencies until the duration is over or Ctrl-C.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let Some(target) = arguments.target.clone().filter(|_| !arguments.list) else {
        list(arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    };
    if arguments.explain {
        return explain(&target, arguments);
    }
    let signals = signals_of(&target)?;
    let all: Vec<Shown> = signals.iter().map(|signal| shown(signal)).collect();
    let selection = Selection {
        filters: arguments.filter,
        by: arguments.by,
    };
    let (shown, without) = selection.part(&all).map_err(anyhow::Error::msg)?;
    let signals: Vec<_> = signals
        .into_iter()
        .filter(|signal| shown.iter().any(|one| one.signal == signal.name))
        .collect();
    let left_out = left_out(&without);
    if arguments.json && !left_out.is_empty() {
        writeln!(std::io::stderr(), "kldtrace: {left_out}")?;
    }
    let files = arguments
        .hgrm
        .map(|path| hgrm::Files::create(&path, &shown))
        .transpose()?;

    super::log::start("error", LogFormat::Text)?;
    let mut source = source(&signals, &arguments.daemon, &Config::default())?;
    let measured = source.snapshot()?;
    let shown: Vec<Shown> = shown
        .into_iter()
        .filter(|shown| measured.iter().any(|family| family.name == shown.metric))
        .collect();
    if shown.is_empty() {
        not_measured(source.as_ref(), &target, &signals)?;
    }
    let options = session::Options {
        target,
        shown,
        selection,
        left_out,
        interval: arguments.interval,
        duration: arguments.duration,
        format: format(arguments.json),
    };
    let stop = super::stop::on_signals()?;
    let total = session::run(
        source.as_mut(),
        &options,
        &stop,
        &mut std::io::stdout().lock(),
    )?;
    if let Some(files) = files {
        files.write(&total.rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// How long `--explain` measures where nobody says.
const EXPLAIN_FOR: Duration = Duration::from_secs(10);

/// Where only we measure, every operation that takes longer is looked at by
/// itself: so many that a quantile's are among them, and none of those that
/// the ARC serves.
const EXPLAIN_SLOW: Duration = Duration::from_millis(1);

fn explain(target: &str, arguments: Arguments) -> anyhow::Result<ExitCode> {
    if target != Subject::Zfs.as_str() {
        bail!("--explain is for zfs: only there each stage of an operation is known");
    }
    let request = explain::Request::new(arguments.by, arguments.filter, arguments.quantile)
        .map_err(anyhow::Error::msg)?;
    let signals: Vec<_> = explain::SIGNALS
        .iter()
        .filter_map(|name| catalogue::find(name))
        .collect();
    super::log::start("error", LogFormat::Text)?;
    let mut config = Config::default();
    config.zfs.slow_operation = EXPLAIN_SLOW;
    let mut source = source(&signals, &arguments.daemon, &config)?;
    let operations = signals[0];
    if !source
        .snapshot()?
        .iter()
        .any(|family| family.name == operations.metric)
    {
        not_measured(source.as_ref(), target, &signals)?;
    }
    let options = view::explain::Options {
        request,
        duration: arguments.duration.unwrap_or(EXPLAIN_FOR),
        interval: arguments.interval.max(Duration::from_millis(100)),
        format: format(arguments.json),
    };
    let stop = super::stop::on_signals()?;
    let mut out = std::io::stdout().lock();
    view::explain::run(source.as_mut(), &options, &stop, &mut out)?;
    Ok(ExitCode::SUCCESS)
}

fn format(json: bool) -> Format {
    match Screen::stdout() {
        _ if json => Format::Json,
        Some(screen) => Format::Terminal(screen),
        None => Format::Plain,
    }
}

/// Why there is nothing of a target to show.
fn not_measured(
    source: &dyn Source,
    target: &str,
    signals: &[&'static Signal],
) -> anyhow::Result<()> {
    let module = signals.first().and_then(|s| s.subject.object().module);
    if let Some(module) = module.filter(|module| modules::loading(module).is_none()) {
        bail!("{target}: {}", modules::absent_because(module));
    }
    if let Some(reason) = signals.iter().find_map(|signal| source.reason(signal)) {
        bail!("{target}: none of its signals is measured: {reason}");
    }
    bail!(
        "{target}: none of its signals is measured: kldtrace doctor says why; if the daemon's \
         configuration leaves them out, enable them there or use --attach"
    );
}

fn shown(signal: &'static Signal) -> Shown {
    Shown {
        signal: signal.name,
        metric: signal.metric,
        help: signal.help,
        labels: signal.labels,
        by: signal.usual_groups(),
    }
}

/// The signals that do not have the labels that were asked for.
fn left_out(without: &[Shown]) -> String {
    if without.is_empty() {
        return String::new();
    }
    let names: Vec<_> = without.iter().map(|one| one.signal).collect();
    format!("without these labels, left out: {}", names.join(", "))
}

fn latencies() -> impl Iterator<Item = &'static Signal> {
    catalogue::signals().filter(|signal| signal.kind == Kind::Histogram)
}

/// The subjects that have latencies to show; kldtrace's own are none to ask for.
fn subjects() -> impl Iterator<Item = Subject> {
    let has_some = |subject: &Subject| {
        let mut latencies = latencies();
        latencies.any(|s| s.subject == *subject && s.cost != catalogue::Cost::OnDemand)
    };
    Subject::ALL
        .into_iter()
        .filter(move |subject| *subject != Subject::Own && has_some(subject))
}

fn signals_of(target: &str) -> anyhow::Result<Vec<&'static Signal>> {
    let of_subject = |signal: &Signal| {
        signal.subject.as_str() == target && signal.cost != catalogue::Cost::OnDemand
    };
    let signals: Vec<_> = latencies()
        .filter(|signal| signal.name == target || of_subject(signal))
        .collect();
    if signals.is_empty() {
        if let Some(other) = catalogue::find(target) {
            bail!(
                "{target} is a {}, which has no latencies: see {} in /metrics",
                format!("{:?}", other.kind).to_lowercase(),
                other.exported_name()
            );
        }
        let names = subjects()
            .map(Subject::as_str)
            .chain(latencies().map(|signal| signal.name));
        let hint = did_you_mean(target, names);
        let subjects: Vec<_> = subjects().map(Subject::as_str).collect();
        bail!(
            "unknown target {target:?}{hint}: the targets are {} (kldtrace latency --list)",
            subjects.join(", ")
        );
    }
    Ok(signals)
}

fn list(json: bool) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let signals: Vec<_> = latencies().filter(|s| s.subject != Subject::Own).collect();
    if json {
        for signal in signals {
            let row = serde_json::json!({
                "target": signal.subject.as_str(),
                "signal": signal.name,
                "metric": signal.metric,
                "labels": signal.labels,
                "help": signal.help,
            });
            writeln!(out, "{row}")?;
        }
        return Ok(());
    }
    let widest = signals.iter().map(|signal| signal.name.len()).max();
    let width = widest.unwrap_or_default() + 2;
    for subject in subjects() {
        writeln!(out, "{}", subject.as_str())?;
        for signal in signals.iter().filter(|signal| signal.subject == subject) {
            writeln!(out, "  {:<width$}{}", signal.name, signal.labels.join(", "))?;
            writeln!(out, "    {}", signal.help)?;
        }
    }
    Ok(())
}

/// The daemon if it runs, else our own probes.
fn source(
    signals: &[&'static Signal],
    address: &DaemonAddress,
    config: &Config,
) -> anyhow::Result<Box<dyn Source>> {
    let subject = signals.first().map_or("", |signal| signal.subject.as_str());
    if let Some(daemon) = address.daemon(subject)? {
        return Ok(Box::new(daemon));
    }
    super::require_root()?;
    // Names of short-lived cgroups come from these events.
    let mut wanted = signals.to_vec();
    if signals.iter().any(|signal| signal.labels.contains(&"unit")) {
        wanted.extend(catalogue::find("self.cgroup_events"));
    }
    let mut reader = Reader::attach(
        &wanted,
        &selection::options(config),
        &selection::labels(config),
    )?;
    for (signal, is) in reader.signals() {
        if let Availability::Absent(reason) = is {
            writeln!(
                std::io::stderr(),
                "kldtrace: {} is absent: {reason}",
                signal.name
            )?;
        }
    }
    reader.keep_events(EVENTS);
    Ok(Box::new(Attached(reader)))
}

/// Events that are kept between two looks.
const EVENTS: usize = 10_000;

/// Our own probes, for as long as this runs.
struct Attached(Reader);

impl Source for Attached {
    fn snapshot(&mut self) -> anyhow::Result<Vec<Family>> {
        self.0.families(|signal| signal.kind == Kind::Histogram)
    }

    fn events(&mut self) -> anyhow::Result<Vec<Event>> {
        self.0.drain()?;
        Ok(self.0.take_events())
    }

    fn reason(&self, signal: &Signal) -> Option<String> {
        let signals = self.0.signals().into_iter();
        let mut ours = signals.filter(|(one, _)| one.name == signal.name);
        ours.find_map(|(_, is)| is.reason().map(str::to_owned))
    }
}
