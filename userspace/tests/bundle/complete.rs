//! What belongs to an alert is there: each missing part is named.

use std::{collections::BTreeSet, fs, process::Command};

use kldtrace::bundle;
use serde_json::{Value, json};

use super::files::{Exported, TestFile, export, installed, repository, said, subjects, yaml};

/// Alerts about nothing on a node; the others name it.
const WITHOUT_NODE: &[&str] = &["NodesAbsent", "Watchdog"];
/// Alerts about a state: there is no number to tell.
const WITHOUT_VALUE: &[&str] = &[
    "ZfsPoolDown",
    "ZfsPoolDegraded",
    "NodeDown",
    "NodesAbsent",
    "Watchdog",
    "PlaneNotAttached",
    "PlaneInAudit",
    "KldtraceSignalAbsent",
    "KldtraceCollectorHangs",
];

#[test]
fn every_file_is_carried_and_tested() {
    let carried: BTreeSet<_> = bundle::RULES.iter().map(|source| source.name).collect();
    for subject in subjects() {
        let name = format!("kldtrace-{subject}.yml");
        assert!(
            carried.contains(name.as_str()),
            "alerts/rules/{subject}.yml is not in RULES of userspace/src/bundle/mod.rs"
        );
    }
    assert_eq!(carried.len(), subjects().len());
}

#[test]
fn every_alert_has_its_cases() {
    let exported = Exported::new(&[]);
    let mut missing = Vec::new();
    for (subject, alert, rule) in exported.alerts() {
        let tests: TestFile = yaml(&exported.test_file(&subject));
        let mut kinds = vec![("fires", true)];
        // What fires always is never quiet.
        if rule.expr != "vector(1)" {
            kinds.push(("stays quiet", false));
        }
        if rule.r#for.is_some() {
            kinds.push(("flaps", false));
        }
        for (kind, fires) in kinds {
            let name = format!("{alert} {kind}");
            let shown = tests.tests.iter().any(|case| {
                case.name == name
                    && case.alert_rule_test.iter().any(|test| {
                        test.alertname == alert
                            && test.exp_alerts.is_empty() != fires
                            && test.exp_alerts.iter().all(|one| {
                                one.exp_labels["severity"] == rule.labels["severity"]
                                    && one.exp_annotations.len() == rule.annotations.len()
                            })
                    })
            });
            if !shown {
                missing.push(format!("alerts/tests/{subject}.yml: {name}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "cases are missing:\n{}",
        missing.join("\n")
    );
}

#[test]
fn every_case_is_of_an_alert() {
    let exported = Exported::new(&[]);
    let alerts: BTreeSet<_> = exported
        .alerts()
        .into_iter()
        .map(|(_, name, _)| name)
        .collect();
    for subject in subjects() {
        let tests: TestFile = yaml(&exported.test_file(&subject));
        for case in tests.tests {
            let (alert, kind) = case.name.split_once(' ').unwrap();
            assert!(alerts.contains(alert), "{}", case.name);
            assert!(
                ["fires", "stays quiet", "flaps"].contains(&kind),
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn every_alert_says_what_it_must() {
    for (_, alert, rule) in Exported::new(&[]).alerts() {
        let severity = rule.labels["severity"].as_str();
        let severities = ["critical", "warning", "info", "none"];
        assert!(severities.contains(&severity), "{alert}: {severity}");
        let team = rule.labels["team"].as_str();
        assert!(
            ["storage", "network", "platform"].contains(&team),
            "{alert}: {team}"
        );
        let annotation = |name: &str| {
            let text = rule.annotations.get(name);
            text.unwrap_or_else(|| panic!("{alert} has no {name}"))
        };
        let names_node = annotation("summary").contains("{{ or $labels.node $labels.instance }}");
        assert!(
            names_node || WITHOUT_NODE.contains(&alert.as_str()),
            "{alert} names no node"
        );
        let tells_value = annotation("description").contains("$value");
        assert!(
            tells_value || WITHOUT_VALUE.contains(&alert.as_str()),
            "{alert} tells no value"
        );
        let end = format!("/docs/src/runbooks/{alert}.md");
        assert!(
            annotation("runbook_url").ends_with(&end),
            "{alert}: runbook_url"
        );
    }
}

#[test]
fn export_keeps_what_others_wrote() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path();
    fs::write(rules.join("own.yml"), "groups: []\n").unwrap();
    for _ in 0..2 {
        let output = export("alerts", rules, &[]);
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(
        fs::read_to_string(rules.join("own.yml")).unwrap(),
        "groups: []\n"
    );

    fs::write(rules.join("kldtrace-tcp.yml"), "groups: []\n").unwrap();
    let output = export("alerts", rules, &["--set", "tcp_connect_seconds=2"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("kldtrace-tcp.yml is there already"),
        "{}",
        said(&output)
    );
    let zfs = fs::read_to_string(rules.join("kldtrace-zfs.yml")).unwrap();
    assert!(zfs.starts_with("# Written by kldtrace "));
}

/// Rules and the configuration that reads them, into one folder.
#[test]
fn prometheus_reads_the_rules() {
    if !installed("promtool") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let discover = ["--discover", "http://node-1:9750/targets"];
    let alertmanager = ["--alertmanager", "a:9093", "--alertmanager", "b:9093"];
    let more = [&discover[..], &alertmanager].concat();
    let written = export("prometheus", folder.path(), &more);
    assert!(written.status.success(), "{}", said(&written));
    export("alerts", &folder.path().join("rules"), &[]);
    let output = Command::new("promtool")
        .args(["check", "config", "prometheus.yml"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let found = format!("{} rule files found", subjects().len());
    assert!(said(&output).contains(&found), "{}", said(&output));
    let config: Value = yaml(&folder.path().join("prometheus.yml"));
    let targets = &config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"];
    assert_eq!(*targets, json!(["a:9093", "b:9093"]));
}

#[test]
fn wrong_choices_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    for (more, why) in [
        (["--set", "zfs_zil_commit_second=1"], "did you mean"),
        (
            ["--set", "zfs_zil_commit_seconds=1 or vector(1)"],
            "must be a number",
        ),
        (["--set", "node_down_for=5"], "must be a time"),
        (["--set", "tcp_objective=1.3"], "must be a share"),
        (
            ["--match", "job=\"a\"} or vector(1) or up{job=\"a\""],
            "--match",
        ),
        (["--runbooks", "here"], "--runbooks"),
    ] {
        let output = export("alerts", &rules, &more);
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(said(&output).contains(why), "{}", said(&output));
        assert!(!rules.exists());
    }
}

#[test]
fn settings_are_listed() {
    for (what, setting) in [
        ("alerts", "zfs_zil_commit_seconds"),
        ("alertmanager", "slack_url_file"),
    ] {
        let output = export(what, &repository(), &["--list"]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains(setting));
    }
}
