//! Alertmanager's own tool reads the configuration and says who is told.

use std::{path::Path, process::Command};

use serde_json::Value;

use super::files::{Exported, export, installed, repository, said, yaml};

fn exported(more: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let output = export("alertmanager", folder.path(), more);
    assert!(output.status.success(), "{}", said(&output));
    folder
}

fn amtool(folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new("amtool")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_configuration_is_one() {
    if !installed("amtool") {
        return;
    }
    for more in [
        &[][..],
        &[
            "--set",
            "timezone=Europe/Berlin",
            "--set",
            "storage_slack=#a \"b\": c",
        ],
    ] {
        amtool(exported(more).path(), &["check-config", "alertmanager.yml"]);
    }
}

#[test]
fn the_right_people_are_told() {
    if !installed("amtool") {
        return;
    }
    let folder = exported(&[]);
    for (labels, receivers) in [
        (
            &["alertname=Watchdog", "severity=none", "team=platform"][..],
            "watchdog",
        ),
        (
            &["severity=critical", "team=storage"],
            "page-storage,storage",
        ),
        (
            &["severity=critical", "team=network"],
            "page-network,network",
        ),
        (
            &["severity=critical", "team=platform"],
            "page-platform,platform",
        ),
        // Nobody's page is the platform's.
        (&["severity=critical"], "page-platform,platform"),
        (&["severity=warning", "team=storage"], "storage"),
        (&["severity=warning", "team=network"], "network"),
        (&["severity=warning", "team=platform"], "platform"),
        (&["severity=info", "team=storage"], "info"),
        (&["alertname=Foreign"], "platform"),
    ] {
        let test = ["config", "routes", "test", "--config.file=alertmanager.yml"];
        let said = amtool(folder.path(), &[&test[..], labels].concat());
        assert_eq!(said.trim(), receivers, "{labels:?}");
    }
}

/// Every alert has a route of its own, not just the last resort.
#[test]
fn every_alert_is_routed() {
    if !installed("amtool") {
        return;
    }
    let folder = exported(&[]);
    for (_, alert, rule) in Exported::new(&[]).alerts() {
        let [severity, team] = ["severity", "team"].map(|name| rule.labels[name].as_str());
        let receivers = match severity {
            "critical" => format!("page-{team},{team}"),
            "warning" => team.to_owned(),
            "info" => "info".to_owned(),
            _ => "watchdog".to_owned(),
        };
        let said = amtool(
            folder.path(),
            &[
                "config",
                "routes",
                "test",
                "--config.file=alertmanager.yml",
                &format!("alertname={alert}"),
                &format!("severity={severity}"),
                &format!("team={team}"),
            ],
        );
        assert_eq!(said.trim(), receivers, "{alert}");
    }
}

/// Names in inhibitions are those of alerts.
#[test]
fn inhibitions_are_of_alerts() {
    let folder = exported(&[]);
    let config: Value = yaml(&folder.path().join("alertmanager.yml"));
    let alerts: Vec<_> = Exported::new(&[]).alerts();
    let known = |name: &str| alerts.iter().any(|(_, alert, _)| alert == name);
    for rule in config["inhibit_rules"].as_array().unwrap() {
        for side in ["source_matchers", "target_matchers"] {
            for matcher in rule[side].as_array().unwrap() {
                let matcher = matcher.as_str().unwrap();
                let Some(names) = matcher.strip_prefix("alertname ") else {
                    continue;
                };
                let names = names.split('"').nth(1).unwrap();
                for name in names.split('|').filter(|name| !name.ends_with(".+")) {
                    assert!(known(name), "no alert {name}");
                }
            }
        }
    }
}

/// A secret is the content of a file that Alertmanager reads, never of this one.
#[test]
fn no_secret_is_written() {
    let text = std::fs::read_to_string(repository().join("alerts/alertmanager.yml")).unwrap();
    for key in [
        "routing_key:",
        "service_key:",
        "slack_api_url:",
        "api_url:",
        "smtp_auth_password:",
        "auth_password:",
        "credentials:",
        "password:",
    ] {
        let found = text
            .lines()
            .any(|line| line.trim_start().trim_start_matches("- ").starts_with(key));
        assert!(!found, "{key} has the secret itself: use {key}_file");
    }
}
