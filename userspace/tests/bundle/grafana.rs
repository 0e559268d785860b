//! What is written for Grafana and Loki, all of it together, and the check.

use std::{fs, path::Path, process::Command};

use kldtrace::bundle::dashboards;
use serde_json::Value;

use super::files::{export, installed, said, yaml};

const DISCOVER: [&str; 2] = ["--discover", "http://node-1:9750/targets"];

fn all(folder: &Path, more: &[&str]) {
    let written = export("all", folder, &[&DISCOVER[..], more].concat());
    assert!(written.status.success(), "{}", said(&written));
}

fn check(folder: &Path, path: Option<&str>) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kldtrace"));
    command.args(["export", "check"]).arg(folder);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output().unwrap();
    (output.status.code(), said(&output))
}

#[test]
fn all_is_written_and_checked() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    all(folder, &[]);
    // Its own files are replaced.
    all(
        folder,
        &[
            "--set",
            "keycloak_realm=people",
            "--set",
            "node_down_for=2m",
        ],
    );
    let (code, words) = check(folder, Some("/nowhere"));
    assert_eq!(code, Some(3), "{words}");
    assert!(words.contains("(promtool is not there)"), "{words}");
    assert!(words.contains("(amtool is not there)"), "{words}");
    if !installed("promtool") || !installed("amtool") {
        return;
    }
    let (code, words) = check(folder, None);
    assert_eq!(code, Some(0), "{words}");
    // Dashboards, rules, alertmanager.yml and prometheus.yml.
    let right = words
        .lines()
        .filter(|line| line.starts_with("right"))
        .count();
    assert!(right > dashboards::ALL.len() + 8, "{words}");

    let rules = folder.join("prometheus/rules/kldtrace-tcp.yml");
    let text = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, text.replace("expr: |-", "exrp: |-")).unwrap();
    let (code, words) = check(folder, None);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("wrong"), "{words}");
    // And it is not ours any more.
    let again = export("all", folder, &DISCOVER);
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("kldtrace-tcp.yml is there already"));
}

#[test]
fn an_empty_folder_has_nothing_to_check() {
    let folder = tempfile::tempdir().unwrap();
    let (code, words) = check(folder.path(), None);
    assert_eq!(code, Some(1));
    assert!(words.contains("has nothing of kldtrace export"), "{words}");
}

/// Every `${…}` that is left is one of Grafana's, escaped as it wants it.
#[test]
fn nothing_is_left_to_fill_in() {
    let folder = tempfile::tempdir().unwrap();
    all(folder.path(), &[]);
    let grafana = folder.path().join("grafana");
    for file in [
        grafana.join("grafana.ini"),
        grafana.join("provisioning/datasources/kldtrace.yml"),
        grafana.join("provisioning/dashboards/kldtrace.yml"),
        folder.path().join("loki/loki.yml"),
    ] {
        let text = fs::read_to_string(&file).unwrap();
        let escaped = text.replace("$${", "");
        assert!(!escaped.contains("${"), "{}", file.display());
    }
}

#[test]
fn grafana_finds_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let written = export(
        "grafana",
        folder.path(),
        &["--set", "loki_uid=lines", "--match", "job=\"k\""],
    );
    assert!(written.status.success(), "{}", said(&written));
    let ini = fs::read_to_string(folder.path().join("grafana.ini")).unwrap();
    assert!(ini.contains(&format!("\nprovisioning = {path}/provisioning\n")));
    // No secret: each is a file.
    for line in ini.lines() {
        let (key, value) = line.split_once(" = ").unwrap_or_default();
        let secret = ["secret", "password"]
            .iter()
            .any(|word| key.ends_with(word));
        assert!(!secret || value.starts_with("$__file{/"), "{line}");
    }
    let provider: Value = yaml(&folder.path().join("provisioning/dashboards/kldtrace.yml"));
    let boards = provider["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    assert_eq!(boards, format!("{path}/dashboards"));
    assert_eq!(fs::read_dir(boards).unwrap().count(), dashboards::ALL.len());

    let sources: Value = yaml(&folder.path().join("provisioning/datasources/kldtrace.yml"));
    let of = |kind: &str| {
        let list = sources["datasources"].as_array().unwrap();
        list.iter().find(|one| one["type"] == kind).unwrap().clone()
    };
    assert_eq!(of("loki")["uid"], "lines");
    assert_eq!(
        of("tempo")["jsonData"]["tracesToLogsV2"]["datasourceUid"],
        "lines"
    );
    assert_eq!(
        of("loki")["jsonData"]["derivedFields"][0]["datasourceUid"],
        "tempo"
    );
    let exemplars = &of("prometheus")["jsonData"]["exemplarTraceIdDestinations"][0];
    assert_eq!(exemplars["name"], "event_id");
    // What Grafana makes of it: `$$` is `$`, and the panes are JSON.
    let url = exemplars["url"].as_str().unwrap().replace("$$", "$");
    let (_, panes) = url.split_once("&panes=").unwrap();
    let panes: Value = serde_json::from_str(&decoded(panes)).unwrap();
    assert_eq!(panes["t"]["datasource"], "tempo");
    assert_eq!(
        panes["t"]["queries"][0]["query"],
        "{ span.event_id = ${__value.raw} }"
    );
    assert_eq!(panes["t"]["range"]["from"], "${__from}");
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn dashboards_of_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own.json");
    fs::write(&own, "{}").unwrap();
    for _ in 0..2 {
        let written = export("dashboards", folder.path(), &[]);
        assert!(written.status.success(), "{}", said(&written));
    }
    assert_eq!(fs::read_to_string(&own).unwrap(), "{}");
    let changed = folder.path().join("kldtrace-zfs.json");
    let text = fs::read_to_string(&changed).unwrap();
    fs::write(&changed, text.replace("kldtrace / ZFS", "mine")).unwrap();
    let again = export("dashboards", folder.path(), &["--set", "loki_uid=b"]);
    assert_eq!(again.status.code(), Some(1));
    let words = said(&again);
    assert!(
        words.contains("kldtrace-zfs.json is there already"),
        "{words}"
    );
    let forced = export("dashboards", folder.path(), &["--force"]);
    assert!(forced.status.success(), "{}", said(&forced));
}

#[test]
fn wrong_choices_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("to");
    for (what, more, why) in [
        ("dashboards", ["--set", "loki_uuid=a"], "did you mean"),
        (
            "dashboards",
            ["--match", "job=\"$node\""],
            "variable in Grafana",
        ),
        (
            "grafana",
            ["--set", "keycloak_url=keycloak"],
            "must be an address",
        ),
        (
            "grafana",
            ["--set", "keycloak_client=a b"],
            "must be letters",
        ),
        ("all", ["--set", "keycloak_relm=a"], "did you mean"),
        ("all", ["--runbooks", "here"], "--runbooks"),
    ] {
        let more: Vec<_> = match what {
            "all" => [&DISCOVER[..], &more].concat(),
            _ => more.to_vec(),
        };
        let output = export(what, &to, &more);
        assert_eq!(output.status.code(), Some(1), "{what} {more:?}");
        assert!(said(&output).contains(why), "{}", said(&output));
        assert!(!to.exists());
    }
    let strange = folder.path().join("a b");
    let output = export("grafana", &strange, &[]);
    assert!(said(&output).contains("Grafana has to be told this folder"));
    assert!(!strange.exists());
}
