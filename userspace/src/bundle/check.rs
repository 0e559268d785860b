//! Reading what was written as the programs would that it is for.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Deeper than anything that kldtrace writes, and the end of a loop of links.
const DEPTH: usize = 6;

/// What a file was held against, and what came of it.
pub struct Checked {
    /// The file.
    pub path: PathBuf,
    /// The program and its arguments, or what else read it.
    pub by: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is wrong.
    Right,
    /// The program's words.
    Wrong(String),
    /// The program is not on this machine.
    NotThere,
}

/// Checks all that is known in a folder and below, in the order of the names.
///
/// # Errors
/// When the folder cannot be read, or has nothing that is known.
pub fn check(folder: &Path) -> Result<Vec<Checked>> {
    let mut files = Vec::new();
    find(folder, DEPTH, &mut files)?;
    files.sort();
    let checked: Vec<_> = files.into_iter().filter_map(check_one).collect();
    if checked.is_empty() {
        bail!("{} has nothing of kldtrace export", folder.display());
    }
    Ok(checked)
}

fn find(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let kind = entry.file_type().with_context(cannot)?;
        if kind.is_file() {
            files.push(entry.path());
        } else if kind.is_dir() && depth > 0 {
            find(&entry.path(), depth - 1, files)?;
        }
    }
    Ok(())
}

/// `None`: the file is none of ours, or no program here reads its kind.
fn check_one(path: PathBuf) -> Option<Checked> {
    let name = path.file_name()?.to_str()?;
    let ours = name.starts_with("kldtrace-");
    let extension = path.extension()?.to_str()?;
    let rules = |path: &Path| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().any(|line| line == "groups:")
    };
    let (by, outcome) = match (name, extension) {
        ("prometheus.yml", _) => run("promtool", &["check", "config"], &path),
        ("alertmanager.yml", _) => run("amtool", &["check-config"], &path),
        (_, "yml") if ours && rules(&path) => run("promtool", &["check", "rules"], &path),
        (_, "json") if ours => ("kldtrace".to_owned(), dashboard_or_targets(&path)),
        _ => return None,
    };
    Some(Checked { path, by, outcome })
}

fn run(program: &str, arguments: &[&str], path: &Path) -> (String, Outcome) {
    let by = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).arg(path).output();
    let outcome = match output {
        Ok(output) if output.status.success() => Outcome::Right,
        Ok(output) => {
            let both = [&output.stdout[..], &output.stderr].concat();
            Outcome::Wrong(String::from_utf8_lossy(&both).trim().to_owned())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Outcome::NotThere,
        Err(error) => Outcome::Wrong(error.to_string()),
    };
    (by, outcome)
}

/// Whether it is JSON with what Grafana needs of a dashboard, or Prometheus of
/// a list of targets.
fn dashboard_or_targets(path: &Path) -> Outcome {
    let read = || -> Result<()> {
        let model: Value = serde_json::from_slice(&fs::read(path)?)?;
        if let Value::Array(groups) = &model {
            if groups.iter().any(|group| !group["targets"].is_array()) {
                bail!("a group without targets");
            }
            return Ok(());
        }
        for key in ["title", "uid"] {
            if !model[key].is_string() {
                bail!("a dashboard without a {key}");
            }
        }
        if !model["panels"].is_array() || !model["templating"]["list"].is_array() {
            bail!("a dashboard without panels or variables");
        }
        Ok(())
    };
    match read() {
        Ok(()) => Outcome::Right,
        Err(error) => Outcome::Wrong(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        check(path).map(drop).unwrap_err();
        fs::create_dir(path.join("below")).unwrap();
        let good = r#"{"title":"a","uid":"b","panels":[],"templating":{"list":[]}}"#;
        fs::write(path.join("below/kldtrace-a.json"), good).unwrap();
        fs::write(path.join("kldtrace-b.json"), r#"{"title":"a"}"#).unwrap();
        fs::write(path.join("kldtrace-c.json"), "{").unwrap();
        fs::write(path.join("kldtrace-targets.json"), r#"[{"targets":[]}]"#).unwrap();
        fs::write(path.join("other.json"), "{").unwrap();
        let checked = check(path).unwrap();
        let right: Vec<_> = checked
            .iter()
            .map(|one| one.outcome == Outcome::Right)
            .collect();
        assert_eq!(right, [true, false, false, true]);
        check(&path.join("nowhere")).map(drop).unwrap_err();
    }

    #[test]
    fn a_program_that_is_not_there_is_told() {
        let (by, outcome) = run("kldtrace-no-such-program", &["check"], Path::new("/a"));
        assert_eq!(by, "kldtrace-no-such-program check");
        assert_eq!(outcome, Outcome::NotThere);
    }
}
