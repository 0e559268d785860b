//! `kldtrace docs`: what is generated from the definitions.

mod commands;

use std::{io::Write, process::ExitCode};

use clap::{Args, CommandFactory as _, Subcommand};
use clap_complete::Shell;

use super::Cli;
use crate::{
    catalogue::{
        self, EVENTS, EventKind, Signal, Subject,
        digests::{DIGESTS, Digest, Made, Only},
    },
    config::Config,
};

/// Arguments of `kldtrace docs`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace docs man | man -l -
  kldtrace docs completions bash > /etc/bash_completion.d/kldtrace")]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The reference of all signals, as Markdown
    Reference,
    /// The reference of the configuration, as Markdown
    Config,
    /// What --help of each command prints, as Markdown
    Cli,
    /// The man page
    Man,
    /// Completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Writes to standard output.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match arguments.what {
        What::Reference => reference(&mut out)?,
        What::Config => {
            writeln!(
                out,
                "# Configuration\n\n<!-- generated: kldtrace docs config -->\n"
            )?;
            writeln!(out, "```toml\n{}```", Config::example())?;
        }
        What::Cli => commands::page(&mut out)?,
        What::Man => commands::man(&mut out)?,
        What::Completions { shell } => {
            // It panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kldtrace", &mut script);
            out.write_all(&script)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn reference(out: &mut dyn Write) -> std::io::Result<()> {
    writeln!(
        out,
        "# Signals\n\n<!-- generated: kldtrace docs reference -->\n"
    )?;
    writeln!(
        out,
        "Every signal of the catalogue, with its metric. Histograms have buckets of schema 3\n\
         (see [Histograms](../concepts/histograms.md)). A signal that a kernel cannot serve is\n\
         shown by `kldtrace doctor` with the reason and by\n\
         `kldtrace_signal_available{{signal=\"…\"}} 0`. A digest is what the daemon makes of\n\
         a signal for whoever asks often and of many nodes; it comes and goes with it.\n"
    )?;
    for subject in Subject::ALL {
        writeln!(out, "## {}\n", subject.as_str())?;
        for signal in catalogue::signals().filter(|signal| signal.subject == subject) {
            entry(signal, out)?;
        }
        for digest in DIGESTS.iter().filter(|one| one.signal().subject == subject) {
            for made in digest.makes {
                digested(digest, made, out)?;
            }
        }
        for event in EVENTS.iter().filter(|event| event.subject == subject) {
            told(event, out)?;
        }
    }
    Ok(())
}

/// The entry of what is made of a histogram.
fn digested(digest: &Digest, made: &Made, out: &mut dyn Write) -> std::io::Result<()> {
    let name = made.exported_name();
    let labels: Vec<_> = digest
        .labels_of(made)
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let any = |values: &[&str]| {
        let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
        values.join(" or ")
    };
    let only = match digest.only {
        Only::All => String::new(),
        Only::Is(label, values) => format!(", where `{label}` is {}", any(values)),
        Only::IsNot(label, values) => format!(", where `{label}` is not {}", any(values)),
    };
    writeln!(out, "### Digest {name}\n\n{}\n", made.help)?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| metric | `{name}` |")?;
    writeln!(out, "| kind | {:?} |", made.kind())?;
    writeln!(
        out,
        "| unit | {} |",
        digest.unit_of(made).as_str().unwrap_or("count")
    )?;
    let labels = match &labels[..] {
        [] => "none".to_owned(),
        labels => labels.join(", "),
    };
    writeln!(out, "| labels | {labels} |")?;
    writeln!(out, "| made of | `{}`{only} |\n", digest.of)
}

/// An event's entry.
fn told(event: &EventKind, out: &mut dyn Write) -> std::io::Result<()> {
    let named = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let (subject, kind) = (event.subject.as_str(), event.kind);
    writeln!(out, "### Event {subject}.{kind}\n\n{}\n", event.help)?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| labels | {} |", named(event.labels))?;
    writeln!(out, "| fields | {} |", named(event.fields))?;
    writeln!(out, "| told by | {} |\n", named(event.signals))
}

fn entry(signal: &Signal, out: &mut dyn Write) -> std::io::Result<()> {
    let labels: Vec<_> = signal
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let hooks: Vec<_> = signal
        .hooks
        .iter()
        .map(|candidates| {
            let names: Vec<_> = candidates
                .iter()
                .map(|hook| format!("`{}`", hook.attach))
                .collect();
            names.join(", else ")
        })
        .collect();
    let or = |list: Vec<String>, none: &str, between: &str| {
        if list.is_empty() {
            none.to_owned()
        } else {
            list.join(between)
        }
    };
    let fields: Vec<_> = signal
        .fields
        .iter()
        .map(|field| format!("`{field}`"))
        .collect();
    writeln!(out, "### {}\n\n{}\n", signal.name, signal.help)?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| metric | `{}` |", signal.exported_name())?;
    writeln!(out, "| kind | {:?} |", signal.kind)?;
    writeln!(
        out,
        "| unit | {} |",
        signal.unit.as_str().unwrap_or("count")
    )?;
    writeln!(out, "| labels | {} |", or(labels, "none", ", "))?;
    writeln!(
        out,
        "| hooks | {} |",
        or(hooks, "read when asked for", "; ")
    )?;
    writeln!(
        out,
        "| kernel fields of its own | {} |",
        or(fields, "none", ", ")
    )?;
    writeln!(out, "| cost class | {} |", signal.cost.as_str())?;
    writeln!(out, "| follows | {} |\n", signal.source)
}
