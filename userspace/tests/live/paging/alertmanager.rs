//! An Alertmanager with what kldtrace writes for it.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use super::{mail::Mailbox, receiver::Receiver};
use crate::common::{fetch, free_port, kldtrace, wait_for};

/// A running Alertmanager; ends with this value.
pub struct Alertmanager {
    child: Child,
    /// Where it listens.
    pub port: u16,
    folder: tempfile::TempDir,
}

impl Alertmanager {
    /// One that tells the receiver and the mailbox everything. Teams are paged by
    /// keys that say which team it is.
    pub fn start(receiver: &Receiver, mailbox: &Mailbox) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let mut set = vec![
            format!("pagerduty_url={}", receiver.url("pagerduty")),
            format!("watchdog_url={}", receiver.url("watchdog")),
            format!("smtp_host=127.0.0.1:{}", mailbox.port),
            "group_wait=0s".to_owned(),
            "group_interval=1s".to_owned(),
        ];
        for team in ["storage", "network", "platform"] {
            let key = path.join(team);
            fs::write(&key, format!("page-{team}")).unwrap();
            set.push(format!("{team}_pagerduty_file={}", key.display()));
            set.push(format!("{team}_slack=#{team}"));
        }
        let slack = path.join("slack");
        fs::write(&slack, receiver.url("slack")).unwrap();
        set.push(format!("slack_url_file={}", slack.display()));
        export("alertmanager", path, &set);
        // The test is run at any hour, and its mailbox does not encrypt.
        let file = path.join("alertmanager.yml");
        let text = fs::read_to_string(&file).unwrap();
        let text = text.replacen("global:\n", "global:\n  smtp_require_tls: false\n", 1);
        let loud = text
            .lines()
            .filter(|line| !line.contains("mute_time_intervals:"));
        fs::write(
            &file,
            loud.map(|line| line.to_owned() + "\n").collect::<String>(),
        )
        .unwrap();

        let port = free_port();
        let log = fs::File::create(path.join("log")).unwrap();
        let child = Command::new("prometheus-alertmanager")
            .current_dir(path)
            .args(["--config.file=alertmanager.yml", "--storage.path=data"])
            .args(["--cluster.listen-address=", "--log.level=debug"])
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Self {
            child,
            port,
            folder,
        };
        wait_for("alertmanager", || fetch(port, "/-/ready", "").is_some());
        started
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log"));
            println!("alertmanager: {}", log.unwrap_or_default());
        }
    }
}

/// Writes a part of the bundle, with settings.
pub fn export(what: &str, folder: &Path, set: &[String]) {
    let mut command = kldtrace();
    command.args(["export", what]).arg(folder);
    for one in set {
        command.args(["--set", one]);
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
}
