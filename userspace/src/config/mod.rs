//! The daemon's configuration: one TOML file in which every key is optional.
//!
//! The table in `settings.rs` defines each key once, with its type, default,
//! range and help; the structs, [`Config::default`], the checks and
//! [`Config::example`] all come from there. An error names file, line, column
//! and key, and what to write instead; all errors of a file are reported
//! together.

mod error;
mod joint;
mod kinds;
mod parse;
mod read;
mod read_journal;
mod read_push;
mod settings;
#[cfg(test)]
mod tests;
pub mod units;

use std::{fmt::Write, fs, io::Read, path::Path};

pub use error::ConfigError;
pub use kinds::{
    Compression, HookKind, JournalSince, Level, LogFormat, LokiFormat, MapMemory, OtlpProtocol,
    OtlpSignal, Priority,
};
pub use settings::{
    Config, Fleet, Hooks, Journal, Limits, Listen, Log, Loki, Node, Objectives, Otlp, Planes,
    Signals, Spool, Wireguard,
};

use crate::words;

/// Largest configuration file that is read, in bytes (1 MiB).
pub const MAX_FILE: u64 = 1 << 20;

impl Config {
    /// Reads the file at `path`. `signals` are the names in the catalogue.
    ///
    /// # Errors
    /// If the file cannot be read, is larger than [`MAX_FILE`] or is not
    /// UTF-8, and as [`Config::parse`].
    pub fn load<'a>(
        path: &Path,
        signals: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        let origin = path.display().to_string();
        let mut bytes = Vec::new();
        // One byte over the limit tells a full file from a longer one, also
        // where the size is not known beforehand, as with a pipe.
        fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
            .map_err(|error| ConfigError::whole(&origin, format!("cannot be read: {error}")))?;
        match std::str::from_utf8(&bytes) {
            // Checked before UTF-8: the limit may cut a character in two.
            _ if bytes.len() as u64 > MAX_FILE => Err(ConfigError::too_large(&origin)),
            Ok(text) => Self::parse(text, &origin, signals),
            Err(error) => {
                let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let message = "not UTF-8, which TOML must be".to_owned();
                Err(ConfigError::at(
                    &origin,
                    &valid,
                    vec![(valid.len(), message)],
                ))
            }
        }
    }

    /// Reads TOML `text`, which error messages call `origin`. `signals` are
    /// the names in the catalogue. Keys that are missing get their default.
    ///
    /// # Errors
    /// For text longer than [`MAX_FILE`], the first error of syntax, or else
    /// every unknown key, wrong type, wrong unit, number out of range and
    /// unknown signal.
    pub fn parse<'a>(
        text: &str,
        origin: &str,
        signals: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, ConfigError> {
        if text.len() as u64 > MAX_FILE {
            return Err(ConfigError::too_large(origin));
        }
        let signals: Vec<&str> = signals.into_iter().collect();
        parse::parse(text, origin, &signals)
    }

    /// A configuration file with every key, its help and, commented out, its
    /// default.
    pub fn example() -> String {
        let mut example = String::from(
            "# kldtrace's configuration. Every key is optional; what stands here after a\n\
             # single # is its default. Sizes are written with their unit, as in \"64MiB\".\n",
        );
        for section in settings::SECTIONS {
            example.push('\n');
            comment(&mut example, section.about);
            let _ = writeln!(example, "[{}]", section.name);
            for (number, key) in section.keys.iter().enumerate() {
                if number > 0 {
                    example.push('\n');
                }
                comment(&mut example, key.help);
                match key.entries() {
                    None => {
                        let _ = writeln!(example, "#{} = {}", key.name, key.default);
                    }
                    Some(entries) => {
                        let _ = writeln!(example, "#[{}.{}]", section.name, key.name);
                        for (name, value) in entries {
                            let _ = writeln!(example, "#{name} = {value}");
                        }
                    }
                }
            }
        }
        example
    }

    /// The name of this node: the configured one, or else its host name.
    pub fn node_name(&self) -> String {
        self.node.name.clone().unwrap_or_else(host_name)
    }
}

/// The name that this host has for itself.
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned())
}

impl Signals {
    /// Whether the configuration asks for the signal `name`: `disable` wins.
    pub fn wants(&self, name: &str) -> bool {
        let named = |patterns: &[String]| patterns.iter().any(|p| words::matches(p, name));
        named(&self.enable) && !named(&self.disable)
    }

    /// Whether `enable` has the signal's name in full.
    pub fn names(&self, name: &str) -> bool {
        self.enable.iter().any(|pattern| pattern == name)
    }
}

impl Limits {
    /// Memory that the kernel's maps of one set of probes may take together, on a
    /// node with `node_memory` bytes of RAM, in bytes.
    pub fn map_memory_bytes(&self, node_memory: u64) -> u64 {
        match self.map_memory {
            MapMemory::Auto => (node_memory / 1000).clamp(16 << 20, 256 << 20),
            MapMemory::Bytes(bytes) => bytes,
        }
    }
}

/// Appends doc comment `text` as TOML comment lines.
fn comment(example: &mut String, text: &str) {
    for line in text.lines() {
        let _ = writeln!(example, "# {}", line.trim());
    }
}
