//! Prometheus' own tool reads the rules and runs their unit tests.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use super::files::{Exported, installed, said, subjects, yaml};

/// Runs `promtool test rules` on one file: whether it passed, and what it said.
pub fn test_rules(file: &Path) -> (bool, String) {
    let output = Command::new("promtool")
        .args(["test", "rules"])
        .arg(file)
        .output()
        .unwrap();
    (output.status.success(), said(&output))
}

#[test]
fn rules_are_rules() {
    if !installed("promtool") {
        return;
    }
    let strange = "job=\"a: b #c\",cluster=~\"it's|\\\"x\\\"|}\"";
    for more in [
        &[][..],
        &["--match", strange],
        &[
            "--set",
            "zfs_zil_commit_seconds=0.2",
            "--set",
            "node_down_for=0s",
        ],
    ] {
        let exported = Exported::new(more);
        for subject in subjects() {
            let output = Command::new("promtool")
                .args(["check", "rules", "--lint-fatal"])
                .arg(exported.rule_file(&subject))
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", said(&output));
        }
    }
}

#[test]
fn alerts_fire_and_stay_quiet() {
    if !installed("promtool") {
        return;
    }
    let exported = Exported::new(&[]);
    for subject in subjects() {
        let (passed, said) = test_rules(&exported.test_file(&subject));
        assert!(passed, "{said}");
    }
}

/// A case that flaps is one only if it would fire without `for`.
#[test]
fn flapping_would_fire_at_once() {
    if !installed("promtool") {
        return;
    }
    let exported = Exported::new(&[]);
    for subject in subjects() {
        let mut rules: Value = yaml(&exported.rule_file(&subject));
        for group in rules["groups"].as_array_mut().unwrap() {
            for rule in group["rules"].as_array_mut().unwrap() {
                rule.as_object_mut().unwrap().remove("for");
            }
        }
        let mut tests: Value = yaml(&exported.test_file(&subject));
        let cases = tests["tests"].as_array_mut().unwrap();
        cases.retain(|case| case["name"].as_str().unwrap().ends_with(" flaps"));
        let names: BTreeSet<_> = cases
            .iter()
            .map(|case| case["name"].as_str().unwrap().to_owned())
            .collect();
        if names.is_empty() {
            continue;
        }
        // JSON is YAML.
        fs::write(exported.rule_file(&subject), rules.to_string()).unwrap();
        fs::write(exported.test_file(&subject), tests.to_string()).unwrap();
        let (_, said) = test_rules(&exported.test_file(&subject));
        for name in names {
            assert!(
                said.contains(&format!("name: {name},")),
                "{name}: it does not fire without `for` either: {said}"
            );
        }
    }
}
