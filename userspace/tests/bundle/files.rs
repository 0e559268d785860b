//! The files of the bundle, as `kldtrace export` writes them and as they are
//! read by others.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde::{Deserialize, de::DeserializeOwned};

/// A file of Prometheus' rules.
#[derive(Deserialize)]
pub struct RuleFile {
    pub groups: Vec<Group>,
}

#[derive(Deserialize)]
pub struct Group {
    pub rules: Vec<Rule>,
}

/// A recording rule has `record`, an alert has `alert`.
#[derive(Clone, Deserialize)]
pub struct Rule {
    pub record: Option<String>,
    pub alert: Option<String>,
    pub expr: String,
    pub r#for: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// A file of promtool's unit tests.
#[derive(Deserialize)]
pub struct TestFile {
    pub tests: Vec<Case>,
}

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub alert_rule_test: Vec<AlertTest>,
}

#[derive(Deserialize)]
pub struct AlertTest {
    pub alertname: String,
    pub exp_alerts: Vec<Expected>,
}

#[derive(Deserialize)]
pub struct Expected {
    pub exp_labels: BTreeMap<String, String>,
    pub exp_annotations: BTreeMap<String, String>,
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a YAML file has, with its path in the panic when it has something else.
pub fn yaml<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The subjects: names of the files in alerts/rules/.
pub fn subjects() -> Vec<String> {
    let files = fs::read_dir(repository().join("alerts/rules")).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut subjects: Vec<_> = files.map(|file| stem(file.unwrap().path())).collect();
    subjects.sort();
    subjects
}

/// A folder with exported rules in `rules` and their unit tests in `tests`.
pub struct Exported {
    pub folder: tempfile::TempDir,
}

impl Exported {
    pub fn new(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let output = export("alerts", &folder.path().join("rules"), more);
        assert!(output.status.success(), "{}", said(&output));
        let tests = folder.path().join("tests");
        fs::create_dir(&tests).unwrap();
        for subject in subjects() {
            let name = format!("{subject}.yml");
            fs::copy(
                repository().join("alerts/tests").join(&name),
                tests.join(&name),
            )
            .unwrap_or_else(|e| panic!("alerts/tests/{name}: {e}"));
        }
        Self { folder }
    }

    pub fn rule_file(&self, subject: &str) -> PathBuf {
        self.folder
            .path()
            .join(format!("rules/kldtrace-{subject}.yml"))
    }

    pub fn test_file(&self, subject: &str) -> PathBuf {
        self.folder.path().join(format!("tests/{subject}.yml"))
    }

    /// Every rule, by subject.
    pub fn rules(&self) -> Vec<(String, Rule)> {
        let mut rules = Vec::new();
        for subject in subjects() {
            let file: RuleFile = yaml(&self.rule_file(&subject));
            let of_file = file.groups.into_iter().flat_map(|group| group.rules);
            rules.extend(of_file.map(|rule| (subject.clone(), rule)));
        }
        rules
    }

    /// Every alert with its name, by subject.
    pub fn alerts(&self) -> Vec<(String, String, Rule)> {
        let rules = self.rules().into_iter();
        rules
            .filter_map(|(subject, rule)| Some((subject, rule.alert.clone()?, rule)))
            .collect()
    }
}

pub fn export(what: &str, folder: &Path, more: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kldtrace"))
        .args(["export", what])
        .arg(folder)
        .args(more)
        .output()
        .unwrap()
}

/// Both outputs of a program.
pub fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// Whether a program is there; says that the test is skipped if not.
pub fn installed(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("skipped: {program} is not installed");
    }
    there
}
