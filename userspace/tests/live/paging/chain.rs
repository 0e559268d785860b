//! All that is between a fault and people.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use super::receiver::Receiver;
use crate::{
    authority::Authority,
    common::{Daemon, fetch, free_port, kldtrace, wait_for},
    prometheus::Prometheus,
};

/// A running Alertmanager; ends with this value.
struct Alertmanager {
    child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Alertmanager {
    fn start(receiver: &Receiver) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let key = path.join("key");
        fs::write(&key, "0123456789abcdef0123456789abcdef").unwrap();
        let slack = path.join("slack");
        fs::write(&slack, receiver.url("slack")).unwrap();
        export(
            "alertmanager",
            path,
            &[
                format!("pagerduty_url={}", receiver.url("pagerduty")),
                format!("watchdog_url={}", receiver.url("watchdog")),
                format!("slack_url_file={}", slack.display()),
                format!("storage_pagerduty_file={}", key.display()),
                format!("network_pagerduty_file={}", key.display()),
                format!("platform_pagerduty_file={}", key.display()),
                "group_wait=0s".to_owned(),
                "group_interval=1s".to_owned(),
            ],
        );
        // The test is run at any hour.
        let file = path.join("alertmanager.yml");
        let text = fs::read_to_string(&file).unwrap();
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

fn export(what: &str, folder: &Path, set: &[String]) {
    let mut command = kldtrace();
    command.args(["export", what]).arg(folder);
    for one in set {
        command.args(["--set", one]);
    }
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
}

/// A Prometheus with the rules, and holds that are over at once. The second
/// daemon speaks TLS.
fn prometheus(daemon: &Daemon, secured: &Daemon, alertmanager: u16) -> Prometheus {
    let folder = tempfile::tempdir().unwrap();
    let holds = [
        "node_down_for",
        "collector_for",
        "signal_absent_for",
        "push_down_for",
        "block_for",
        "tcp_failures_for",
        "sched_runqueue_for",
        "tcp_listen_for",
        "certificate_urgent_for",
    ];
    // A disk and a minute of the test are no real load.
    let mut set: Vec<_> = holds.iter().map(|hold| format!("{hold}=0s")).collect();
    set.extend(["block_rate=0.01", "sched_runqueue_seconds=0.004"].map(str::to_owned));
    export("alerts", &folder.path().join("rules"), &set);
    let config = format!(
        "global: {{scrape_interval: 5s, evaluation_interval: 5s}}\n\
         rule_files: ['rules/*.yml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}\n\
         scrape_configs: [{{job_name: kldtrace, tls_config: {{insecure_skip_verify: true}}, \
         static_configs: [\
         {{targets: ['127.0.0.1:{}'], labels: {{node: n-1}}}}, \
         {{targets: ['127.0.0.1:{}'], labels: {{node: n-2, __scheme__: https}}}}]}}]\n",
        daemon.port, secured.port
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    Prometheus::in_folder(folder)
}

/// The daemon's configuration: pushes go to a port on which nobody listens.
fn more(folder: &Path) -> String {
    format!(
        "[spool]\ndirectory = \"{}/spool\"\n\
         [otlp]\nurl = \"http://127.0.0.1:{}\"\nprotocol = \"http\"\ninterval = \"1s\"\n\
         [signals]\nenable = [\"self.*\", \"block.*\", \"tcp.*\", \"sched.runqueue_latency\", \
         \"zfs.op_latency\"]",
        folder.display(),
        free_port()
    )
}
/// All that is between a fault and people.
pub struct Chain {
    pub daemon: Daemon,
    /// What the daemon's configuration has after `[listen]`.
    pub more: String,
    pub authority: Authority,
    /// Of another daemon, which speaks TLS.
    pub certificate: tempfile::TempDir,
    pub receiver: Receiver,
    pub prometheus: Prometheus,
    _secured: Daemon,
    _alertmanager: Alertmanager,
    _spool: tempfile::TempDir,
}

impl Chain {
    /// `None`, and a line that says so, without root.
    pub fn start() -> Option<Self> {
        let spool = tempfile::tempdir().unwrap();
        let more = more(spool.path());
        let daemon = Daemon::start(&more)?;
        let authority = Authority::new("ours");
        let certificate = tempfile::tempdir().unwrap();
        let issued = authority.issue(&["n-2.example"]);
        issued.write(certificate.path(), "n-2");
        let path = certificate.path().display();
        let secured = Daemon::spawn(&format!(
            "tls_certificate = \"{path}/n-2.pem\"\ntls_key = \"{path}/n-2.key\"\n\
             [signals]\nenable = [\"self.*\"]"
        ))?;
        let receiver = Receiver::new();
        let alertmanager = Alertmanager::start(&receiver);
        let prometheus = prometheus(&daemon, &secured, alertmanager.port);
        Some(Self {
            daemon,
            more,
            authority,
            certificate,
            receiver,
            prometheus,
            _secured: secured,
            _alertmanager: alertmanager,
            _spool: spool,
        })
    }

    /// Waits for the channel of a team.
    pub fn told(&self, alert: &str) {
        self.receiver.wait("/slack", alert, "FIRING");
    }
}
