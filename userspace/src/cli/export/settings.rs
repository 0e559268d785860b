//! Files of the bundle: how people choose what is in them, and see what they
//! can choose.

use std::{
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use clap::Args;

use crate::bundle::{
    template::{Bundle, Setting, Source},
    values::Values,
    write,
};

/// The options that choose values.
#[derive(Debug, Args)]
pub struct Settings {
    /// Value of a setting in place of its default; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// List the settings with their defaults, units and reasons
    #[arg(long)]
    pub list: bool,
    /// Write over files that kldtrace did not write, or that were changed since
    #[arg(long)]
    pub force: bool,
}

/// Whose series they are.
#[derive(Debug, Args)]
pub struct Matching {
    /// What chooses the series of kldtrace in Prometheus
    #[arg(
        long = "match",
        value_name = "MATCHERS",
        default_value = "job=\"kldtrace\""
    )]
    pub selector: String,
}

/// Where people read on.
#[derive(Debug, Args)]
pub struct Runbooks {
    /// Where the runbooks are that alerts link to
    #[arg(
        long = "runbooks",
        value_name = "URL",
        default_value = "https://github.com/kldload/kldtrace/blob/main/docs/src/runbooks"
    )]
    pub url: String,
}

/// Writes the files into the folder, or lists the settings where there is none.
pub fn export(
    sources: &'static [Source],
    values: &Values,
    settings: &Settings,
    folder: Option<&Path>,
    command: &str,
) -> anyhow::Result<ExitCode> {
    let bundle = Bundle::parse(sources)?;
    match folder {
        Some(folder) if !settings.list => {
            let files = marked(command, bundle.fill(values)?);
            write::write(folder, &files, settings.force)?;
        }
        _ => list(bundle.settings())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Files with the mark of the command in each.
pub fn marked(
    command: &str,
    mut files: Vec<(&'static str, String)>,
) -> Vec<(&'static str, String)> {
    for (_, text) in &mut files {
        *text = write::marked(command, text);
    }
    files
}

/// Prints settings with their defaults, units and reasons.
pub fn list<'a>(settings: impl IntoIterator<Item = &'a Setting> + Clone) -> io::Result<()> {
    let width = |of: fn(&Setting) -> usize| settings.clone().into_iter().map(of).max().unwrap_or(0);
    let name = width(|one| one.name.len());
    let default = width(|one| one.default.len());
    let unit = width(|one| one.unit.as_str().len());
    let mut out = io::stdout().lock();
    for one in settings {
        writeln!(
            out,
            "{:name$}  {:>default$} {:unit$}  {}",
            one.name,
            one.default,
            one.unit.as_str(),
            one.why
        )?;
    }
    Ok(())
}
