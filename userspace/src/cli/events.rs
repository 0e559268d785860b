//! `kldtrace events`.

use std::{
    io::{IsTerminal as _, Write},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::bail;
use clap::Args;
use kldtrace_exporters::model::Event;

use super::{DaemonAddress, client::Client};
use crate::{
    catalogue::{self, EVENTS, Subject},
    config::{Config, LogFormat, units},
    selection,
    signals::reader::Reader,
    view::{events, screen::Line},
    words::did_you_mean,
};

/// Arguments of `kldtrace events`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace events                          what the daemon has kept
  kldtrace events zfs --since 10m
  kldtrace events --follow --json | jq 'select(.labels.unit == \"pg.service\")'

A running daemon is asked. Without one there is nothing that was kept: the
probes that tell events are attached, and what happens is shown until Ctrl-C.")]
pub struct Arguments {
    /// Events of this subject only: zfs, wireguard, planes
    subject: Option<String>,
    /// Go on with what happens from now on, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only what happened in this time until now: 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = units::duration, allow_hyphen_values = true)]
    since: Option<Duration>,
    /// Show the newest so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100)]
    limit: usize,
    /// One JSON object for each event
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonAddress,
}

/// How often is looked for new ones, and how soon a Ctrl-C is seen.
const LOOK: Duration = Duration::from_secs(1);
const REACTION: Duration = Duration::from_millis(50);

/// The most that is asked for at once: all that a daemon can keep.
const ALL: usize = 100_000;

/// Shows events.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let subject = arguments.subject.as_deref().map(subject).transpose()?;
    super::log::start("error", LogFormat::Text)?;
    let out = std::io::stdout().lock();
    let color = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let mut writer = Writer {
        out,
        json: arguments.json,
        color,
    };
    let stop = super::stop::on_signals()?;
    match arguments
        .daemon
        .daemon(subject.map_or("", Subject::as_str))?
    {
        Some(daemon) => kept(&daemon, arguments, &stop, &mut writer)?,
        None => attached(subject, &stop, &mut writer)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn subject(name: &str) -> anyhow::Result<Subject> {
    let with_events = |one: &Subject| EVENTS.iter().any(|event| event.subject == *one);
    if let Some(subject) = Subject::ALL.into_iter().find(|one| one.as_str() == name) {
        if !with_events(&subject) {
            bail!("{name} tells no events: see kldtrace latency {name}");
        }
        return Ok(subject);
    }
    let names = Subject::ALL.into_iter().filter(with_events);
    let names: Vec<_> = names.map(Subject::as_str).collect();
    let hint = did_you_mean(name, names.iter().copied());
    bail!(
        "unknown subject {name:?}{hint}: events are told of {}",
        names.join(", ")
    )
}

/// What the daemon has kept, and what comes to it.
fn kept(
    daemon: &Client,
    arguments: &Arguments,
    stop: &AtomicBool,
    writer: &mut Writer<impl Write>,
) -> anyhow::Result<()> {
    let wanted = match arguments.since {
        Some(_) => ALL,
        None => arguments.limit,
    };
    let page = daemon.events(None, wanted)?;
    let from = arguments
        .since
        .and_then(|since| SystemTime::now().checked_sub(since));
    let young = |event: &&Event| from.is_none_or(|from| events::time(event) >= from);
    let young: Vec<_> = page.events.iter().filter(young).collect();
    writer.begin()?;
    for event in &young[young.len().saturating_sub(arguments.limit)..] {
        writer.event(event)?;
    }
    writer.out.flush()?;
    let mut after = page.next;
    while arguments.follow && wait(stop) {
        let page = match daemon.events(Some(after), ALL) {
            Ok(page) => page,
            // A daemon that went down with the same Ctrl-C is no failure.
            Err(_) if stop.load(Ordering::Relaxed) => break,
            Err(error) => return Err(error),
        };
        if page.forgotten > 0 {
            let forgotten = page.forgotten;
            writeln!(
                std::io::stderr(),
                "kldtrace: {forgotten} events came and went between two looks: raise [limits] events"
            )?;
        }
        for event in &page.events {
            writer.event(event)?;
        }
        writer.out.flush()?;
        after = page.next;
    }
    Ok(())
}

/// What happens from now on, told by our own probes.
fn attached(
    subject: Option<Subject>,
    stop: &AtomicBool,
    writer: &mut Writer<impl Write>,
) -> anyhow::Result<()> {
    super::require_root()?;
    let kinds = EVENTS
        .iter()
        .filter(|event| subject.is_none_or(|subject| subject == event.subject));
    let mut wanted: Vec<_> = kinds
        .flat_map(|event| event.signals)
        .filter_map(|name| catalogue::find(name))
        // Names of short-lived cgroups come from these events.
        .chain(catalogue::find("self.cgroup_events"))
        .collect();
    let mut seen = std::collections::HashSet::new();
    wanted.retain(|signal| seen.insert(signal.name));
    let config = Config::default();
    let mut reader = Reader::attach(
        &wanted,
        &selection::options(&config),
        &selection::labels(&config),
    )?;
    let mut errors = std::io::stderr();
    for (signal, is) in reader.signals() {
        if let Some(reason) = is.reason() {
            writeln!(errors, "kldtrace: {} is absent: {reason}", signal.name)?;
        }
    }
    writeln!(
        errors,
        "kldtrace: no daemon runs, so nothing was kept: showing what happens until Ctrl-C"
    )?;
    writer.begin()?;
    writer.out.flush()?;
    while wait(stop) {
        reader.drain()?;
        for event in reader.take_events() {
            writer.event(&event)?;
        }
        writer.out.flush()?;
    }
    Ok(())
}

/// Waits for the next look; whether to go on.
fn wait(stop: &AtomicBool) -> bool {
    let start = Instant::now();
    while start.elapsed() < LOOK {
        if stop.load(Ordering::Relaxed) {
            return false;
        }
        thread::sleep(REACTION);
    }
    true
}

struct Writer<W> {
    out: W,
    json: bool,
    color: bool,
}

impl<W: Write> Writer<W> {
    fn begin(&mut self) -> std::io::Result<()> {
        if self.json {
            return Ok(());
        }
        self.line(&events::header())
    }

    fn event(&mut self, event: &Event) -> std::io::Result<()> {
        if self.json {
            return events::json(&mut self.out, event);
        }
        self.line(&events::row(event))
    }

    fn line(&mut self, line: &Line) -> std::io::Result<()> {
        writeln!(self.out, "{}", line.render(self.color))
    }
}
