//! What the operator chooses for the files of the bundle.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{
    template::Bundle,
    unit::{check_path, check_url},
};

/// Values for settings, and for what every file may use.
#[derive(Clone, Debug, Default)]
pub struct Values {
    /// What needs no `# set` line, by name.
    pub(super) built_in: BTreeMap<&'static str, String>,
    /// By name of the setting.
    pub(super) chosen: BTreeMap<String, String>,
}

impl Values {
    /// Names that need no `# set` line.
    pub(super) const BUILT_IN: [&str; 3] = ["match", "runbooks", "folder"];

    /// `set` has `NAME=VALUE`.
    ///
    /// # Errors
    /// When one is not that, or a name comes twice.
    pub fn new(set: &[String]) -> Result<Self> {
        let mut values = Self::default();
        for one in set {
            let (name, value) = one
                .split_once('=')
                .with_context(|| format!("--set wants NAME=VALUE, not {one:?}"))?;
            let before = values.chosen.insert(name.to_owned(), value.to_owned());
            if before.is_some() {
                bail!("--set {name} comes twice");
            }
        }
        Ok(values)
    }

    /// What stands between the braces of every selector.
    ///
    /// # Errors
    /// When it is not a list of matchers.
    pub fn with_selector(mut self, selector: &str) -> Result<Self> {
        check_selector(selector).with_context(|| {
            format!("--match wants job=\"kldtrace\" or the like, not {selector:?}")
        })?;
        self.built_in.insert("match", selector.to_owned());
        Ok(self)
    }

    /// The address of the folder with the runbooks.
    ///
    /// # Errors
    /// When it is no address.
    pub fn with_runbooks(mut self, url: &str) -> Result<Self> {
        check_url(url).context("--runbooks is wrong")?;
        let url = url.trim_end_matches('/');
        self.built_in.insert("runbooks", url.to_owned());
        Ok(self)
    }

    /// The folder that files are written to, for those that name others in it.
    ///
    /// # Errors
    /// When its full path cannot stand without quotes.
    pub fn with_folder(mut self, folder: &Path) -> Result<Self> {
        let full = std::path::absolute(folder)
            .with_context(|| format!("no folder {}", folder.display()))?;
        // A name ends in no slash, and `.` is the folder itself.
        let full = full.components().collect::<PathBuf>();
        let full = full.to_string_lossy().into_owned();
        check_path(&full).context("Grafana has to be told this folder")?;
        self.built_in.insert("folder", full);
        Ok(self)
    }

    /// What stands between the braces of every selector.
    pub(super) fn selector(&self) -> Option<&str> {
        self.built_in.get("match").map(String::as_str)
    }

    /// Only what is chosen for the settings of a bundle.
    #[must_use]
    pub fn of(&self, bundle: &Bundle) -> Self {
        let mut values = self.clone();
        let settings = bundle.settings();
        values
            .chosen
            .retain(|name, _| settings.iter().any(|one| one.name == *name));
        values
    }
}

/// Label matchers with commas between them, each with a value in double quotes:
/// what may stand between the braces of a selector, and can end nothing else.
///
/// <https://prometheus.io/docs/prometheus/latest/querying/basics/>
fn check_selector(selector: &str) -> Result<()> {
    if selector.chars().any(char::is_control) {
        bail!("it has a control character");
    }
    let mut rest = selector;
    loop {
        let name = rest.trim_start();
        let end = name
            .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .unwrap_or(name.len());
        if end == 0 || name.starts_with(|c: char| c.is_ascii_digit()) {
            bail!("a label's name is missing");
        }
        let operator = name[end..].trim_start();
        let value = ["!=", "=~", "!~", "="]
            .iter()
            .find_map(|one| operator.strip_prefix(one))
            .context("=, !=, =~ or !~ is missing")?;
        rest = after_string(value.trim_start())?.trim_start();
        if rest.is_empty() {
            return Ok(());
        }
        rest = rest.strip_prefix(',').context("a comma is missing")?;
    }
}

/// What comes after a string in double quotes.
fn after_string(text: &str) -> Result<&str> {
    let inside = text
        .strip_prefix('"')
        .context("a double quote is missing")?;
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return Ok(&inside[at + 1..]),
            // A template of Prometheus would begin, or a setting of ours.
            '{' | '$' if inside[at..].starts_with("{{") || inside[at..].starts_with("${") => {
                bail!("{{{{ and ${{ have a meaning of their own")
            }
            _ => {}
        }
    }
    bail!("a string does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_matchers_and_nothing_else() {
        for good in [
            "job=\"kldtrace\"",
            "job=\"a\", cluster=~\"b|c\",d!=\"\",e!~\"x\\\"}\"",
            "job=\"a: b #c\"",
        ] {
            check_selector(good).unwrap();
        }
        for bad in [
            "",
            "job",
            "job=kldtrace",
            "job=\"a",
            "job=\"a\\\"",
            "job=\"a\"} or vector(1) #",
            "job=\"a\",",
            "1job=\"a\"",
            "job=\"a\nb\"",
            "job=\"{{ 1 }}\"",
            "job==\"a\"",
        ] {
            assert!(check_selector(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn wrong_choices_are_refused() {
        let new = |set: &[&str]| {
            let set: Vec<_> = set.iter().map(|&one| one.to_owned()).collect();
            Values::new(&set)
        };
        assert_eq!(new(&["a=1=2"]).unwrap().chosen["a"], "1=2");
        assert!(new(&["a"]).is_err());
        assert!(new(&["a=1", "a=2"]).is_err());
        let values = Values::default().with_runbooks("https://r/").unwrap();
        assert_eq!(values.built_in["runbooks"], "https://r");
        assert!(Values::default().with_runbooks("r").is_err());
    }
}
