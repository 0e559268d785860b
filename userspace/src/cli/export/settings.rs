//! Files of the bundle: how people choose what is in them, and see what they
//! can choose.

use std::{io::Write as _, path::Path, process::ExitCode};

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
            let mut files = bundle.fill(values)?;
            for (_, text) in &mut files {
                *text = write::marked(command, text);
            }
            write::write(folder, &files, settings.force)?;
        }
        _ => list(bundle.settings())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(settings: &[Setting]) -> std::io::Result<()> {
    let width = |of: fn(&Setting) -> usize| settings.iter().map(of).max().unwrap_or(0);
    let name = width(|one| one.name.len());
    let default = width(|one| one.default.len());
    let unit = width(|one| one.unit.as_str().len());
    let mut out = std::io::stdout().lock();
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
