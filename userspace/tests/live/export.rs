//! Prometheus finds and reads the nodes by what kldtrace writes for it.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

use super::{
    common::{Daemon, fetch, installed, kldtrace, sh, wait_for},
    prometheus::Prometheus,
};

fn export(folder: &Path, arguments: &[&str]) -> Output {
    kldtrace()
        .args(["export", "prometheus"])
        .arg(folder)
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn export_is_a_configuration_that_promtool_takes() {
    if !installed("promtool") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["ca.pem", "prom's \"own\".pem", "prom.key"] {
        fs::write(path.join(name), "").unwrap();
    }
    let config = path.join("k.toml");
    let tls = "[listen]\ntls_certificate = \"/c\"\ntls_key = \"/k\"\ntls_client_ca = \"/ca\"\n\
               [fleet.nodes]\na = \"10.0.0.1:9750\"\n\"b #1\" = \"[fd00::1]:9750\"\n";
    fs::write(&config, tls).unwrap();
    let config = config.to_str().unwrap();
    let check = |folder: &Path| {
        let output = Command::new("promtool")
            .args(["check", "config", "--syntax-only"])
            .arg(folder.join("prometheus.yml"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
    };

    let out = path.join("new/folder");
    for (arguments, why) in [
        (&["--config", config][..], "--ca FILE"),
        (
            &["--config", config, "--ca", "ca.pem"],
            "--certificate FILE",
        ),
        (&["--interval", "soon"], "--interval"),
        (&["--config", "/nonexistent"], "cannot be read"),
    ] {
        let output = export(&out, arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(why), "{}", said(&output));
        assert!(!out.join("prometheus.yml").exists());
    }
    let full = [
        "--config",
        config,
        "--ca",
        "ca.pem",
        "--certificate",
        "prom's \"own\".pem",
        "--key",
        "prom.key",
    ];
    let output = export(&out, &full);
    assert!(output.status.success(), "{}", said(&output));
    check(&out);
    let targets = fs::read(out.join("kldtrace-targets.json")).unwrap();
    let targets: Value = serde_json::from_slice(&targets).unwrap();
    assert_eq!(targets[1]["targets"][0], "[fd00::1]:9750");
    assert_eq!(targets[1]["labels"]["node"], "b #1");
    assert_eq!(targets[1]["labels"]["__scheme__"], "https");

    // What is there stays there, unless somebody says otherwise.
    fs::write(out.join("prometheus.yml"), "mine").unwrap();
    assert_eq!(export(&out, &full).status.code(), Some(1));
    assert_eq!(fs::read(out.join("prometheus.yml")).unwrap(), b"mine");
    let forced = [&full[..], &["--force"]].concat();
    assert!(export(&out, &forced).status.success());
    check(&out);

    let discovering = path.join("discovering");
    let url = "https://a.example:9750/targets";
    let discover = [&full[..], &["--discover", url]].concat();
    assert!(export(&discovering, &discover).status.success());
    check(&discovering);
    assert!(!discovering.join("kldtrace-targets.json").exists());
}

#[test]
fn prometheus_finds_the_fleet() {
    if !installed("prometheus") {
        return;
    }
    let Some(daemon) = Daemon::start("[node]\nname = \"n-1\"\n[signals]\nenable = [\"self.*\"]")
    else {
        return;
    };
    let config = daemon.folder.path().join("c.toml");
    let discover = format!("http://127.0.0.1:{}/targets", daemon.port);
    for arguments in [
        ["--config", config.to_str().unwrap()],
        ["--discover", &discover],
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = export(
            folder.path(),
            &[&arguments[..], &["--interval", "1s"]].concat(),
        );
        assert!(output.status.success(), "{}", said(&output));
        let prometheus = Prometheus::in_folder(folder);
        wait_for("a scrape", || !prometheus.query("target_info").is_empty());
        let info = prometheus.one("target_info{job=\"kldtrace\"}");
        assert_eq!(info["metric"]["node"], "n-1");
        assert_eq!(info["metric"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(info["metric"]["kernel"], sh("uname -r").trim());
        // Labels of the discovery are on every series.
        let up = prometheus.one("up == 1");
        assert_eq!(up["metric"]["node"], "n-1");
    }
}

#[test]
fn the_fleet_is_read_again() {
    let Some(daemon) = Daemon::start("[signals]\nenable = [\"self.*\"]") else {
        return;
    };
    let targets = || -> Value {
        let (status, body) = daemon.get("/targets", "");
        assert_eq!(status, 200);
        serde_json::from_slice(&body).unwrap()
    };
    let own = format!("127.0.0.1:{}", daemon.port);
    assert_eq!(targets()[0]["targets"][0], own);
    daemon.configure(
        "[signals]\nenable = [\"self.*\"]\n[fleet.nodes]\nb = \"10.0.0.2:9750\"\na = \"10.0.0.1:9750\"",
    );
    daemon.signal(libc::SIGHUP);
    wait_for("the nodes", || {
        targets()[0]["targets"][0] == "10.0.0.1:9750"
    });
    assert_eq!(targets()[1]["labels"]["node"], "b");
}

#[test]
fn scrapes_are_compressed_as_asked() {
    if !installed("curl") {
        return;
    }
    let Some(daemon) = Daemon::start("[signals]\nenable = [\"self.*\"]") else {
        return;
    };
    let url = format!("http://127.0.0.1:{}/metrics", daemon.port);
    let head = |accept: &str| {
        let said = sh(&format!(
            "curl -sS -D - -o /dev/null -H 'Accept-Encoding: {accept}' {url}"
        ));
        let said = said.to_ascii_lowercase();
        assert!(said.contains("vary: accept, accept-encoding"), "{said}");
        said.lines()
            .find_map(|line| line.strip_prefix("content-encoding: ").map(str::to_owned))
    };
    assert_eq!(head("gzip").as_deref(), Some("gzip"));
    assert_eq!(head("gzip;q=0.5, zstd").as_deref(), Some("zstd"));
    assert_eq!(head("zstd;q=0"), None);
    let (plain, body) = fetch(daemon.port, "/metrics", "").unwrap();
    assert!(!plain.to_ascii_lowercase().contains("content-encoding"));
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("# TYPE"));
        lines.map(str::to_owned).collect()
    };
    // Decoded by programs that are not ours.
    let plain = names(&String::from_utf8(body).unwrap());
    let gzip = sh(&format!(
        "curl -sS -H 'Accept-Encoding: gzip' {url} | gzip -dc"
    ));
    assert_eq!(names(&gzip), plain);
    if installed("zstd") {
        let zstd = sh(&format!(
            "curl -sS -H 'Accept-Encoding: zstd' {url} | zstd -dc"
        ));
        assert_eq!(names(&zstd), plain);
    }
}
