//! Files with settings in them, and how they are read and filled.
//!
//! A comment `# set NAME = VALUE UNIT: WHY`, which goes on in lines that are
//! indented by three more spaces, gives a setting its default. `${NAME}` stands
//! for it in every file of the same bundle. `$${` stands for `${`, as Grafana
//! has it: what follows is hers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail};

use super::{unit::Unit, values::Values};
use crate::words::did_you_mean;

/// One file of the bundle, as it lies in the repository.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its name where it is written to.
    pub name: &'static str,
    /// Its text, with settings.
    pub text: &'static str,
}

/// A number or text that the operator may choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// What `--set` calls it.
    pub name: String,
    /// Its value where nobody chooses another.
    pub default: String,
    /// What may be chosen.
    pub unit: Unit,
    /// Why the default is what it is.
    pub why: String,
}

/// Files that share their settings.
#[derive(Debug)]
pub struct Bundle {
    sources: &'static [Source],
    settings: Vec<Setting>,
}

impl Bundle {
    /// Reads the settings.
    ///
    /// # Errors
    /// When a setting is given twice, has an unknown unit or a default that is
    /// none of it; when one is used that is not given, or given and not used.
    pub fn parse(sources: &'static [Source]) -> Result<Self> {
        let mut settings = Vec::new();
        for source in sources {
            read_settings(source.text, &mut settings)
                .with_context(|| format!("{} is wrong", source.name))?;
        }
        let given: BTreeSet<_> = settings.iter().map(|one| one.name.as_str()).collect();
        if given.len() != settings.len() {
            bail!("a setting is given twice");
        }
        let mut used = BTreeSet::new();
        for source in sources {
            fill(source.text, |name| {
                used.insert(name.to_owned());
                let known = given.contains(name) || Values::BUILT_IN.contains(&name);
                known.then(String::new)
            })
            .with_context(|| format!("{} is wrong", source.name))?;
        }
        if let Some(name) = given.iter().find(|name| !used.contains(**name)) {
            bail!("setting {name} is given and not used");
        }
        Ok(Self { sources, settings })
    }

    /// The settings, in the order of the files.
    pub fn settings(&self) -> &[Setting] {
        &self.settings
    }

    /// Name and text of each file, with the values filled in.
    ///
    /// # Errors
    /// When a value is chosen for a setting that is not there, or is none of
    /// its unit.
    pub fn fill(&self, values: &Values) -> Result<Vec<(&'static str, String)>> {
        check_names(&[self], values)?;
        let spelled = self.spell(values)?;
        let filled = self.sources.iter().map(|source| {
            let text = fill(source.text, |name| spelled.get(name).cloned())?;
            Ok((source.name, show_values(&text, &values.chosen)))
        });
        filled.collect()
    }

    /// What stands for each name; values for other bundles' settings are left
    /// alone.
    ///
    /// # Errors
    /// When a value is none of its setting's unit.
    pub fn spell(&self, values: &Values) -> Result<BTreeMap<&str, String>> {
        let mut spelled: BTreeMap<&str, String> = values
            .built_in
            .iter()
            .map(|(name, value)| (*name, value.clone()))
            .collect();
        for setting in &self.settings {
            let chosen = values.chosen.get(&setting.name);
            let value = setting
                .unit
                .spell(chosen.unwrap_or(&setting.default))
                .with_context(|| format!("cannot set {}", setting.name))?;
            spelled.insert(&setting.name, value);
        }
        Ok(spelled)
    }
}

/// Whether each value is for a setting of one of the bundles.
///
/// # Errors
/// When one is for none of them.
pub fn check_names(bundles: &[&Bundle], values: &Values) -> Result<()> {
    let names = || {
        let settings = bundles.iter().flat_map(|bundle| bundle.settings());
        settings.map(|one| one.name.as_str())
    };
    for name in values.chosen.keys() {
        if !names().any(|known| known == name) {
            bail!(
                "no setting {name:?}{}; --list shows all",
                did_you_mean(name, names())
            );
        }
    }
    Ok(())
}

/// A line `# set NAME = VALUE UNIT: WHY`, taken apart.
fn set_line(line: &str) -> Option<Result<Setting>> {
    let line = line.trim_start().strip_prefix("# set ")?;
    let parsed = || {
        let (name, rest) = line.split_once(" = ")?;
        let (value, why) = rest.split_once(": ")?;
        let (default, unit) = value.rsplit_once(' ')?;
        Some(Setting {
            name: is_name(name).then(|| name.to_owned())?,
            default: default.to_owned(),
            unit: Unit::parse(unit)?,
            why: why.to_owned(),
        })
    };
    Some(parsed().with_context(|| format!("not NAME = VALUE UNIT: WHY: {line:?}")))
}

fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    !name.is_empty() && name.chars().all(fits)
}

fn read_settings(text: &str, settings: &mut Vec<Setting>) -> Result<()> {
    // Whether the line before was of a setting: this one may go on with it.
    let mut open = false;
    for line in text.lines() {
        if let Some(setting) = set_line(line) {
            let setting = setting?;
            setting
                .unit
                .spell(&setting.default)
                .with_context(|| format!("the default of {} is wrong", setting.name))?;
            settings.push(setting);
            open = true;
        } else if let Some(more) = line.trim_start().strip_prefix("#   ")
            && open
            && let Some(setting) = settings.last_mut()
        {
            setting.why.push(' ');
            setting.why.push_str(more.trim());
        } else {
            open = false;
        }
    }
    Ok(())
}

/// The text with each `${NAME}` replaced by what `value` says for it.
fn fill(text: &str, mut value: impl FnMut(&str) -> Option<String>) -> Result<String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        if before.ends_with('$') {
            filled.push_str("${");
            rest = after;
            continue;
        }
        let (name, after) = after.split_once('}').context("a ${ is not closed")?;
        filled.push_str(&value(name).with_context(|| format!("no setting {name:?}"))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

/// Chosen values in the comments that gave the defaults, so that a file says
/// what it was made with.
fn show_values(text: &str, chosen: &BTreeMap<String, String>) -> String {
    let mut shown = String::with_capacity(text.len());
    for line in text.lines() {
        if let Some(Ok(setting)) = set_line(line)
            && let Some(value) = chosen.get(&setting.name)
        {
            let old = format!("# set {} = {} ", setting.name, setting.default);
            let new = format!("# set {} = {value} ", setting.name);
            shown.push_str(&line.replacen(&old, &new, 1));
        } else {
            shown.push_str(line);
        }
        shown.push('\n');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# set wait = 0.5 seconds: Half a second
#   is enough.
# Not of it.
expr: x{${match}} > ${wait}
";

    fn parse(text: &'static str) -> Result<Bundle> {
        let source = Source {
            name: "a.yml",
            text,
        };
        Bundle::parse(Box::leak(Box::new([source])))
    }

    fn values(set: &[&str]) -> Values {
        let set: Vec<_> = set.iter().map(|&one| one.to_owned()).collect();
        Values::new(&set)
            .and_then(|values| values.with_selector("job=\"k\""))
            .unwrap()
    }

    #[test]
    fn settings_have_their_reasons() {
        let bundle = parse(TEXT).unwrap();
        let setting = Setting {
            name: "wait".to_owned(),
            default: "0.5".to_owned(),
            unit: Unit::Seconds,
            why: "Half a second is enough.".to_owned(),
        };
        assert_eq!(bundle.settings(), [setting]);
    }

    #[test]
    fn values_are_filled_in() {
        let bundle = parse(TEXT).unwrap();
        let filled = bundle.fill(&values(&[])).unwrap();
        assert!(filled[0].1.ends_with("expr: x{job=\"k\"} > 0.5\n"));
        let filled = bundle.fill(&values(&["wait=2"])).unwrap();
        assert!(filled[0].1.starts_with("# set wait = 2 seconds: Half"));
        assert!(filled[0].1.ends_with("> 2\n"));
    }

    #[test]
    fn what_is_grafanas_stays() {
        let bundle = parse("# set a = 1 count: w\n$${a} $$a ${a} $__file{${a}}\n").unwrap();
        let filled = bundle.fill(&values(&[])).unwrap();
        assert!(filled[0].1.ends_with("$${a} $$a 1 $__file{1}\n"));
    }

    #[test]
    fn wrong_values_are_refused() {
        let bundle = parse(TEXT).unwrap();
        for (set, why) in [
            ("waits=1", "did you mean \"wait\"?"),
            ("wait=soon", "cannot set wait"),
            ("wait=1 or vector(1)", "cannot set wait"),
        ] {
            let error = bundle.fill(&values(&[set])).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }

    #[test]
    fn wrong_templates_are_refused() {
        for (text, why) in [
            ("# set a = 1 count: w\n# set a = 1 count: w\n${a}", "twice"),
            ("# set a = 1 count: w\n", "not used"),
            ("${a}", "no setting \"a\""),
            ("${match", "not closed"),
            ("# set a = 1 furlongs: w\n${a}", "NAME = VALUE UNIT"),
            ("# set a = x count: w\n${a}", "default of a"),
            ("# set A = 1 count: w\n${A}", "NAME = VALUE UNIT"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(format!("{error:#}").contains(why), "{error:#}");
        }
    }
}
