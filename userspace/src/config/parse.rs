//! From TOML text to a checked configuration.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    Config, ConfigError, joint,
    read::Input,
    settings::{SECTIONS, Section},
};
use crate::words::did_you_mean;

/// Reads `text` into a configuration, checking signal names against `signals`.
pub(super) fn parse(text: &str, origin: &str, signals: &[&str]) -> Result<Config, ConfigError> {
    let document = DeTable::parse(text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let message = error.message().replace('\n', "; ");
        ConfigError::at(origin, text, vec![(offset, message)])
    })?;

    let mut config = Config::default();
    let mut faults = Vec::new();
    for (name, value) in document.get_ref() {
        match SECTIONS.iter().find(|known| known.name == name.get_ref()) {
            Some(section) => read_section(section, value, signals, &mut config, &mut faults),
            None => faults.push((name.span().start, unknown_section(name.get_ref()))),
        }
    }
    if faults.is_empty() {
        let place = |name: &str| {
            let mut sections = document.get_ref().iter();
            let section = sections.find(|(known, _)| known.get_ref() == name);
            section.map_or(0, |(name, _)| name.span().start)
        };
        let joint = joint::faults(&config).into_iter();
        faults.extend(joint.map(|(section, message)| (place(section), message.to_owned())));
    }
    if faults.is_empty() {
        return Ok(config);
    }
    Err(ConfigError::at(origin, text, faults))
}

fn read_section(
    section: &Section,
    value: &Spanned<DeValue<'_>>,
    signals: &[&str],
    config: &mut Config,
    faults: &mut Vec<(usize, String)>,
) {
    let DeValue::Table(table) = value.get_ref() else {
        let message = format!("{} must be a section: write [{0}]", section.name);
        faults.push((value.span().start, message));
        return;
    };
    for (name, value) in table {
        let Some(key) = section.keys.iter().find(|key| key.name == name.get_ref()) else {
            let message = unknown_key(section, name.get_ref());
            faults.push((name.span().start, message));
            continue;
        };
        let input = Input {
            value,
            signals: Some(signals),
        };
        if let Err(fault) = (key.set)(config, &input) {
            let joint = if fault.message.starts_with("must ") {
                ""
            } else {
                ":"
            };
            let message = format!(
                "{} in [{}]{joint} {}",
                key.name, section.name, fault.message
            );
            faults.push((fault.offset, message));
        }
    }
}

fn unknown_section(name: &str) -> String {
    // A key that stands above its section is a likely slip.
    if let Some(owner) = owner(name) {
        return format!("{name:?} must stand under [{owner}]");
    }
    let hint = did_you_mean(name, SECTIONS.iter().map(|section| section.name));
    format!("unknown section {}{hint}", clipped(name))
}

fn unknown_key(section: &Section, name: &str) -> String {
    let hint = owner(name).map_or_else(
        || did_you_mean(name, section.keys.iter().map(|key| key.name)),
        |owner| format!(" (it belongs under [{owner}])"),
    );
    format!("unknown key {} in [{}]{hint}", clipped(name), section.name)
}

/// The section that has a key of this name.
fn owner(key: &str) -> Option<&'static str> {
    SECTIONS
        .iter()
        .find(|section| section.keys.iter().any(|known| known.name == key))
        .map(|section| section.name)
}

/// A name from the file in quotes, without its control characters and at
/// most 80 characters of it.
fn clipped(name: &str) -> String {
    match name.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}
