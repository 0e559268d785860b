//! Redaction: what looks like a secret does not leave the node.

use std::borrow::Cow;

use regex::{NoExpand, Regex, RegexBuilder};

/// What is redacted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Names of built-in rules ([`names`]) that are turned off.
    pub off: Vec<String>,
    /// Further rules, applied after those, in this order.
    pub rules: Vec<Rule>,
}

/// A rule of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// A regular expression as the crate `regex` has it.
    pub pattern: String,
    /// What takes the place of what it matches; `${1}` is its first group.
    pub replacement: String,
}

impl Rule {
    /// Whether the rule is of use.
    ///
    /// # Errors
    /// Words about a pattern that is no regular expression, or too large a
    /// one, or finds nothing everywhere.
    pub fn check(&self) -> Result<(), String> {
        self.compile().map(|_| ())
    }

    fn compile(&self) -> Result<Regex, String> {
        let regex = compile(&self.pattern).map_err(|error| {
            // What comes before shows the pattern, on several lines.
            let words = error.to_string();
            let last = words.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        })?;
        if regex.is_match("") {
            return Err("the empty text matches, which is everywhere".to_owned());
        }
        Ok(regex)
    }
}

/// What is wrong with the settings.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no built-in rule of that name.
    #[error("redaction: no built-in rule {0:?}; there are {names}", names = names().collect::<Vec<_>>().join(", "))]
    Unknown(String),
    /// A rule's pattern is of no use.
    #[error("redaction rule {number}: {why}")]
    Pattern {
        /// Counted from 1.
        number: usize,
        /// See [`Rule::check`].
        why: String,
    },
    /// There are more than [`RULES`].
    #[error("redaction: {0} rules, at most {RULES} are taken")]
    TooMany(usize),
}

/// Most rules of the configuration.
pub const RULES: usize = 64;

/// Most bytes of a compiled rule.
const SIZE: usize = 1 << 20;

/// Name, pattern and replacement. Each pattern that has begun to match a value
/// of any length ends at the end of the text at the latest, and so no text
/// takes more than linear time.
const BUILT_IN: &[(&str, &str, &str)] = &[
    (
        "private_key",
        r"(?s)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\z)",
        "[redacted private key]",
    ),
    (
        "wireguard",
        r#"(?i)((?:private|preshared)[-_ ]?key["']?\s{0,8}[=:]\s{0,8}["']?)[a-z0-9+/]{42,43}=?"#,
        "${1}[redacted]",
    ),
    (
        "authorization",
        r#"(?i)(authorization["']?\s{0,8}[=:]\s{0,8}["']?(?:(?:basic|bearer|digest|negotiate|token)\s+)?)[^\s"',;]+"#,
        "${1}[redacted]",
    ),
    (
        "authorization",
        r"(?i)(\bbearer\s{1,8})[a-z0-9._~+/-]{16,}=*",
        "${1}[redacted]",
    ),
    (
        "token",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*",
        "[redacted token]",
    ),
    (
        "token",
        r"\bhv[sbr]\.[A-Za-z0-9_-]{20,}",
        "[redacted token]",
    ),
    (
        "aws",
        r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
        "[redacted AWS key]",
    ),
    (
        "aws",
        r#"(?i)(secret_?access_?key["']?\s{0,8}[=:]\s{0,8}["']?)[a-z0-9/+]{40}"#,
        "${1}[redacted]",
    ),
    (
        "url_password",
        r"(://[^\s/?#:@]{0,256}:)[^\s/?#@]+@",
        "${1}[redacted]@",
    ),
    (
        "password",
        r#"(?i)((?:passw(?:or)?d|passphrase|secret|api[-_]?key|access[-_]?token)\\?["']?\s{0,8}[=:]\s{0,8})(?:\\?"(?s:[^"\\]|\\.)*(?:"|\\?\z)|'[^']*(?:'|\z)|[^\s"',;&]+)"#,
        "${1}[redacted]",
    ),
];

/// Names of the built-in rules.
pub fn names() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    let names = BUILT_IN.iter().map(|(name, ..)| *name);
    names.filter(move |name| std::mem::replace(&mut last, *name) != *name)
}

/// The rules, ready for use.
#[derive(Debug)]
pub struct Redactor {
    rules: Vec<(Regex, String)>,
}

impl Redactor {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a name is unknown, a pattern is none, or there are too many.
    ///
    /// # Panics
    /// Never: our own rules compile, as the tests show.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let off = |name: &str| settings.off.iter().any(|off| off == name);
        if let Some(unknown) = settings.off.iter().find(|off| names().all(|n| n != **off)) {
            return Err(Error::Unknown(unknown.clone()));
        }
        if settings.rules.len() > RULES {
            return Err(Error::TooMany(settings.rules.len()));
        }
        let built_in = BUILT_IN.iter().filter(|(name, ..)| !off(name));
        let mut rules = Vec::new();
        for (_, pattern, replacement) in built_in {
            // The tests compile all of them.
            rules.push((
                compile(pattern).expect("a rule of our own"),
                (*replacement).to_owned(),
            ));
        }
        for (index, rule) in settings.rules.iter().enumerate() {
            let regex = rule.compile().map_err(|why| Error::Pattern {
                number: index + 1,
                why,
            })?;
            rules.push((regex, rule.replacement.clone()));
        }
        Ok(Self { rules })
    }

    /// Redacts `text`, and says whether there was anything.
    pub fn apply(&self, text: &mut Cow<'_, str>) -> bool {
        let mut any = false;
        for (regex, replacement) in &self.rules {
            let replaced = if replacement.contains('$') {
                regex.replace_all(text, replacement.as_str())
            } else {
                regex.replace_all(text, NoExpand(replacement))
            };
            if let Cow::Owned(replaced) = replaced {
                *text = Cow::Owned(replaced);
                any = true;
            }
        }
        any
    }
}

fn compile(pattern: &str) -> Result<Regex, regex::Error> {
    let mut builder = RegexBuilder::new(pattern);
    builder.size_limit(SIZE).dfa_size_limit(SIZE).build()
}

#[cfg(test)]
mod tests;
