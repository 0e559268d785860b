//! `kldtrace doctor`.

use std::{
    io::{IsTerminal as _, Write},
    path::PathBuf,
    process::ExitCode,
};

use anstyle::{AnsiColor, Style};
use clap::Args;

use super::DaemonAddress;
use crate::{
    config::{Config, LogFormat},
    doctor::Report,
    selection,
    signals::{Labels, own, reader::Reader},
    view::text::harmless,
};

/// Arguments of `kldtrace doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 when all that the configuration asks for is measured, else 1.

Examples:
  kldtrace doctor
  kldtrace doctor --json | jq '.signals[] | select(.available | not)'"
)]
pub struct Arguments {
    /// Configuration whose signals are asked for; without it, all signals
    #[arg(long, value_name = "FILE", conflicts_with = "socket")]
    config: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonAddress,
}

/// Reports. A running daemon is asked unless another configuration is given.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = match &arguments.config {
        Some(path) => Config::load(path, selection::names())?,
        None => Config::default(),
    };
    let daemon = if arguments.config.is_some() {
        None
    } else {
        arguments.daemon.daemon("")?
    };
    super::log::start("error", LogFormat::Text)?;
    let report = match daemon {
        Some(daemon) => daemon.doctor()?,
        None => {
            super::require_root()?;
            let wanted = selection::signals(&config);
            let reader =
                Reader::attach(&wanted, &selection::options(&config), &Labels::at_most(1))?;
            Report::make(
                &reader,
                &own::kernel_release(),
                crate::daemon::DOCTOR_WINDOW,
            )
        }
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let color = out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        table(&report, color, &mut out)?;
    }
    Ok(if report.complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(report: &Report, color: bool, out: &mut dyn Write) -> std::io::Result<()> {
    let paint = |style: Style, text: &str| {
        if color {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    };
    let good = AnsiColor::Green.on_default();
    let bad = AnsiColor::Red.on_default();
    let bold = Style::new().bold();

    writeln!(
        out,
        "{}",
        paint(bold, &format!("Kernel {}", harmless(&report.kernel)))
    )?;
    for fact in &report.facts {
        let word = if fact.present {
            paint(good, "yes")
        } else {
            paint(bad, "no ")
        };
        writeln!(out, "  {:<10}{word}  {}", fact.name, harmless(&fact.detail))?;
    }

    let width = report
        .signals
        .iter()
        .map(|s| s.signal.len())
        .max()
        .unwrap_or(0);
    writeln!(out, "\n{}", paint(bold, "Signals"))?;
    for signal in &report.signals {
        let name = &signal.signal;
        if signal.available {
            let hooks = if signal.hooks.is_empty() {
                "read when asked for".to_owned()
            } else {
                signal.hooks.join(", ")
            };
            let word = paint(good, "available");
            writeln!(out, "  {name:<width$}  {word}  {:<6}  {hooks}", signal.cost)?;
        } else {
            let reason = signal.reason.as_deref().unwrap_or("unknown");
            let word = if signal.waiting {
                paint(AnsiColor::Yellow.on_default(), "waiting  ")
            } else {
                paint(bad, "absent   ")
            };
            writeln!(
                out,
                "  {name:<width$}  {word}  because {}",
                harmless(reason)
            )?;
        }
    }

    writeln!(out, "\n{}", paint(bold, "Programs"))?;
    writeln!(
        out,
        "  {:<24}{:<10}{:>12}{:>14}",
        "PROGRAM", "HOOK", "INSTRUCTIONS", "NS PER RUN"
    )?;
    for program in &report.programs {
        let instructions = program
            .instructions
            .map_or("?".to_owned(), |n| n.to_string());
        let nanoseconds = program
            .nanoseconds
            .map_or("not measured".to_owned(), |ns| format!("{ns:.0}"));
        let kind = program.hook.split('/').next().unwrap_or_default();
        writeln!(
            out,
            "  {:<24}{kind:<10}{instructions:>12}{nanoseconds:>14}",
            program.program
        )?;
        for refused in &program.refused {
            writeln!(out, "    instead of {}", harmless(refused))?;
        }
    }
    writeln!(out, "\n{}", verdict(report, &paint))
}

/// The last line: whether anything is missing that the configuration asks for.
fn verdict(report: &Report, paint: &dyn Fn(Style, &str) -> String) -> String {
    let signals = &report.signals;
    let waiting = signals.iter().filter(|signal| signal.waiting).count();
    let available = signals.iter().filter(|signal| signal.available).count();
    let absent = signals.len() - available - waiting;
    if absent > 0 {
        let text = format!(
            "{absent} of {} signals asked for are absent.",
            signals.len()
        );
        return paint(AnsiColor::Red.on_default(), &text);
    }
    let good = AnsiColor::Green.on_default();
    if waiting == 0 {
        return paint(good, "All signals asked for are measured.");
    }
    let text = "All signals asked for are measured, but those that wait for a module or a policy";
    format!("{} ({waiting}).", paint(good, text))
}
