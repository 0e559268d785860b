//! Alertmanager's own tool reads the configuration and says who is told.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

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

/// A running Alertmanager; ends with this value.
struct Running {
    child: Child,
    url: String,
    folder: tempfile::TempDir,
}

impl Running {
    /// It tells nobody: the files with the secrets are not there.
    fn start() -> Self {
        let folder = exported(&[]);
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new("prometheus-alertmanager")
            .current_dir(folder.path())
            .args(["--config.file=alertmanager.yml", "--storage.path=data"])
            .arg("--cluster.listen-address=")
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "alertmanager does not answer");
            thread::sleep(Duration::from_millis(20));
        }
        let url = format!("--alertmanager.url=http://{address}");
        Self { child, url, folder }
    }

    fn amtool(&self, arguments: &[&str]) -> String {
        let url = [self.url.as_str()];
        amtool(self.folder.path(), &[&url[..], arguments].concat())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first of two alerts keeps the second quiet, or does not.
#[test]
fn one_fault_is_told_once() {
    if !installed("amtool") || !installed("prometheus-alertmanager") {
        return;
    }
    let node = "alertname=NodeDown severity=critical job=k instance=1 node=n-1 peer=n-1";
    let pool = "alertname=ZfsPoolDown severity=critical job=k instance=1 pool=tank";
    for (source, target, quiet) in [
        (
            node,
            "alertname=ZfsPoolDown severity=critical job=k instance=1",
            true,
        ),
        (
            node,
            "alertname=SchedRunqueueSlow severity=warning job=k instance=1",
            true,
        ),
        (
            node,
            "alertname=SchedRunqueueSlow severity=warning job=k instance=2",
            false,
        ),
        (
            node,
            "alertname=NodeDown severity=critical job=k instance=2 node=n-2 peer=n-2",
            false,
        ),
        (node, "alertname=Watchdog severity=none", false),
        (node, "alertname=NodesAbsent severity=critical job=k", false),
        // Another node's tunnel to it, and to somebody else.
        (
            node,
            "alertname=WireguardHandshakeFailing severity=critical job=k instance=2 peer=n-1",
            true,
        ),
        (
            node,
            "alertname=WireguardHandshakeFailing severity=critical job=k instance=2 peer=n-3",
            false,
        ),
        // Without names of nodes all peers would be alike.
        (
            "alertname=NodeDown severity=critical job=k instance=1",
            "alertname=WireguardHandshakesRefused severity=warning job=k instance=2",
            false,
        ),
        (
            pool,
            "alertname=ZfsZilCommitSlow severity=warning job=k instance=1 pool=tank",
            true,
        ),
        (
            pool,
            "alertname=ZfsZilCommitSlow severity=warning job=k instance=1 pool=b",
            false,
        ),
        (
            pool,
            "alertname=ZfsDataLost severity=critical job=k instance=1 pool=tank",
            false,
        ),
        (
            "alertname=KldtraceCollectorHangs severity=warning job=k instance=1 collector=zfs",
            "alertname=KldtraceSignalAbsent severity=warning job=k instance=1 signal=zfs.txg_time",
            true,
        ),
    ] {
        let running = Running::start();
        for alert in [source, target] {
            let labels: Vec<_> = alert.split(' ').collect();
            running.amtool(&[&["alert", "add"][..], &labels].concat());
        }
        let inhibited = running.amtool(&["alert", "query", "--inhibited", "-o", "json"]);
        let inhibited: Value = serde_json::from_str(&inhibited).unwrap();
        let names: Vec<_> = inhibited
            .as_array()
            .unwrap()
            .iter()
            .map(|alert| {
                format!(
                    "alertname={}",
                    alert["labels"]["alertname"].as_str().unwrap()
                )
            })
            .collect();
        let expected: Vec<_> = quiet
            .then(|| target.split(' ').next().unwrap().to_owned())
            .into_iter()
            .collect();
        assert_eq!(names, expected, "{source}; {target}");
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
