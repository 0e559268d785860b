//! What a setting of the bundle is measured in: which values it takes, and how
//! they are spelled in the files.

use anyhow::{Result, bail};

/// The unit of a setting. It decides what may be filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds as a number, of at least 0.
    Seconds,
    /// Something a second, of at least 0.
    PerSecond,
    /// How many.
    Count,
    /// How many times as much.
    Times,
    /// Processors: 0.05 is a twentieth of one.
    Cpus,
    /// Between 0 and 1.
    Share,
    /// A duration as Prometheus writes it, such as `5m`.
    Time,
    /// Words for people, a channel, an address.
    Text,
    /// A file on the machine that reads the configuration, by its full path.
    File,
    /// An address that begins with `http://` or `https://`.
    Url,
    /// The same where more follows it: no quotes, and nothing after the path.
    Base,
    /// The full path of a file or folder, where there can be no quotes.
    Path,
    /// A name of letters, digits, `-`, `_` and `.`.
    Name,
}

/// Each unit by its word in `# set` lines.
const WORDS: &[(&str, Unit)] = &[
    ("seconds", Unit::Seconds),
    ("per_second", Unit::PerSecond),
    ("count", Unit::Count),
    ("times", Unit::Times),
    ("cpus", Unit::Cpus),
    ("share", Unit::Share),
    ("time", Unit::Time),
    ("text", Unit::Text),
    ("file", Unit::File),
    ("url", Unit::Url),
    ("base", Unit::Base),
    ("path", Unit::Path),
    ("name", Unit::Name),
];

impl Unit {
    /// The unit of that word.
    pub fn parse(word: &str) -> Option<Self> {
        let found = WORDS.iter().find(|(name, _)| *name == word);
        found.map(|(_, unit)| *unit)
    }

    /// The word in tables.
    pub fn as_str(self) -> &'static str {
        let found = WORDS.iter().find(|(_, unit)| *unit == self);
        found.map_or("", |(word, _)| word)
    }

    /// A value as the files have it: nothing in it can end what it stands in.
    ///
    /// # Errors
    /// When it is none of this unit; the text says what is.
    pub fn spell(self, value: &str) -> Result<String> {
        match self {
            Self::Seconds | Self::PerSecond | Self::Count | Self::Times | Self::Cpus => {
                Ok(number(value)?.to_string())
            }
            Self::Share => {
                let share = number(value)?;
                if share > 1.0 {
                    bail!("must be a share between 0 and 1, not {value:?}");
                }
                Ok(share.to_string())
            }
            Self::Time => {
                if !is_time(value) {
                    bail!("must be a time such as 0s, 90s or 5m, not {value:?}");
                }
                Ok(value.to_owned())
            }
            Self::Text => quoted(value),
            Self::File => {
                if !value.starts_with('/') {
                    bail!("must be the full path of a file, not {value:?}");
                }
                quoted(value)
            }
            Self::Url => {
                check_url(value)?;
                quoted(value)
            }
            Self::Base => {
                check_url(value)?;
                if let Some(c) = value
                    .chars()
                    .find(|c| !is_plain(*c) && !":/[]".contains(*c))
                {
                    bail!("must be an address such as https://host:1234/path, without {c:?}");
                }
                Ok(value.trim_end_matches('/').to_owned())
            }
            Self::Path => {
                check_path(value)?;
                Ok(value.to_owned())
            }
            Self::Name => {
                if value.is_empty() || !value.chars().all(is_plain) {
                    bail!("must be letters, digits, -, _ and ., not {value:?}");
                }
                Ok(value.to_owned())
            }
        }
    }
}

/// What has no meaning of its own in YAML, INI or PromQL.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

/// A full path that may stand without quotes in YAML and INI.
///
/// # Errors
/// When it is no such path.
pub fn check_path(path: &str) -> Result<()> {
    if !path.starts_with('/') || !path.chars().all(|c| is_plain(c) || c == '/') {
        bail!("must be a full path of letters, digits, /, -, _ and ., not {path:?}");
    }
    Ok(())
}

/// A finite number of at least 0.
fn number(value: &str) -> Result<f64> {
    match value.parse::<f64>() {
        Ok(number) if number.is_finite() && number.is_sign_positive() => Ok(number),
        _ => bail!("must be a number of at least 0, not {value:?}"),
    }
}

/// JSON's strings are YAML's as well, whatever is in them.
fn quoted(value: &str) -> Result<String> {
    if value.is_empty() || value.chars().any(char::is_control) {
        bail!("must be text in one line, not {value:?}");
    }
    Ok(serde_json::Value::from(value).to_string())
}

/// Whether Prometheus reads it as a duration of one unit.
pub fn is_time(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let unit = &text[number.len()..];
    let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    digits && number.parse::<u32>().is_ok() && ["ms", "s", "m", "h", "d"].contains(&unit)
}

/// An address that may stand in YAML without quotes.
///
/// # Errors
/// When it is no such address.
pub fn check_url(url: &str) -> Result<()> {
    let rest = url
        .strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"));
    // RFC 3986, 2: what may be in an address.
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._~:/?#[]@!$&'()*+,;=%".contains(c);
    match rest {
        Some(rest) if !rest.is_empty() && rest.chars().all(fits) => Ok(()),
        _ => bail!("must be an address such as https://host/path, not {url:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_one_word() {
        for (word, unit) in WORDS {
            assert_eq!(Unit::parse(word), Some(*unit));
            assert_eq!(unit.as_str(), *word);
        }
        assert_eq!(Unit::parse("furlongs"), None);
    }

    #[test]
    fn values_are_spelled_for_the_files() {
        for (unit, value, spelled) in [
            (Unit::Seconds, "0.20", "0.2"),
            (Unit::Count, "1e3", "1000"),
            (Unit::Share, "1", "1"),
            (Unit::Time, "0s", "0s"),
            (Unit::Text, "#a \"b\": c", "\"#a \\\"b\\\": c\""),
            (Unit::File, "/etc/key", "\"/etc/key\""),
            (Unit::Url, "https://a.b/c", "\"https://a.b/c\""),
            (Unit::Base, "https://a.b:1/c/", "https://a.b:1/c"),
            (Unit::Path, "/etc/a-b_c.d", "/etc/a-b_c.d"),
            (Unit::Name, "a-b_c.d", "a-b_c.d"),
        ] {
            assert_eq!(unit.spell(value).unwrap(), spelled);
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for (unit, value) in [
            (Unit::Seconds, ""),
            (Unit::Seconds, "-1"),
            (Unit::Seconds, "-0"),
            (Unit::Seconds, "NaN"),
            (Unit::Seconds, "inf"),
            (Unit::Seconds, "1 or vector(1)"),
            (Unit::Seconds, "1s"),
            (Unit::Share, "1.01"),
            (Unit::Time, "5"),
            (Unit::Time, "+5m"),
            (Unit::Time, "m"),
            (Unit::Time, "99999999999s"),
            (Unit::Text, ""),
            (Unit::Text, "a\nb"),
            (Unit::File, "key"),
            (Unit::Url, "https://"),
            (Unit::Url, "https://a b"),
            (Unit::Url, "https://{{ .x }}"),
            (Unit::Url, "file:///etc/passwd"),
            (Unit::Base, "https://a?b"),
            (Unit::Base, "https://a#b"),
            (Unit::Base, "https://a;b"),
            (Unit::Path, "etc/a"),
            (Unit::Path, "/a b"),
            (Unit::Path, "/a}"),
            (Unit::Name, ""),
            (Unit::Name, "a'b"),
        ] {
            assert!(unit.spell(value).is_err(), "{unit:?} {value:?}");
        }
    }
}
