//! All that is between a fault and people.

use std::{fs, path::Path, time::Instant};

use serde_json::Value;

use super::{
    alertmanager::{Alertmanager, export},
    hostile::{NODE, Unit, for_slack},
    mail::Mailbox,
    planes::Planes,
    receiver::{Message, Receiver},
    spool::Logs,
    table::Fault,
};
use crate::{
    authority::Authority,
    common::{Daemon, free_port, wait_for},
    prometheus::Prometheus,
    pushes::Receiver as Collector,
};

/// A Prometheus with the rules, and holds that are over at once. The second
/// daemon speaks TLS.
fn prometheus(ports: [u16; 3], alertmanager: u16) -> Prometheus {
    let folder = tempfile::tempdir().unwrap();
    let holds = [
        "node_down_for",
        "collector_for",
        "signal_absent_for",
        "push_down_for",
        "spool_for",
        "block_for",
        "tcp_failures_for",
        "tcp_retransmits_for",
        "tcp_listen_for",
        "sched_runqueue_for",
        "plane_crossing_for",
        "certificate_urgent_for",
    ];
    let mut set: Vec<_> = holds.iter().map(|hold| format!("{hold}=0s")).collect();
    // A disk of the test has no real load, and a machine that compiles for others
    // meanwhile is as slow as the default allows: the fault is worse than that.
    set.extend(["block_rate=0.01", "sched_runqueue_seconds=0.05"].map(str::to_owned));
    export("alerts", &folder.path().join("rules"), &set);
    let targets = ports.iter().zip(["n-1", "n-2", NODE]).map(|(port, node)| {
        let scheme = if node == "n-2" { "https" } else { "http" };
        // A string of JSON is one of YAML.
        let node = Value::from(node);
        format!("{{targets: ['127.0.0.1:{port}'], labels: {{node: {node}, __scheme__: {scheme}}}}}")
    });
    let config = format!(
        "global: {{scrape_interval: 5s, evaluation_interval: 5s}}\n\
         rule_files: ['rules/*.yml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}\n\
         scrape_configs: [{{job_name: kldtrace, tls_config: {{insecure_skip_verify: true}}, \
         static_configs: [{}]}}]\n",
        targets.collect::<Vec<_>>().join(", ")
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    // A reload has Prometheus forget for seconds where Alertmanager is, and what it
    // has to say meanwhile it says again only after this.
    let again = "--rules.alert.resend-delay=10s";
    Prometheus::run(folder, &["--enable-feature=native-histograms", again])
}

/// The daemon's configuration: metrics go to a port on which nobody listens.
fn more(folder: &Path, port: u16) -> String {
    format!(
        "[spool]\ndirectory = \"{}/spool\"\n\
         [otlp]\nurl = \"http://127.0.0.1:{port}\"\nprotocol = \"http\"\ninterval = \"1s\"\n\
         signals = [\"metrics\"]\n\
         [signals]\nenable = [\"self.*\", \"block.*\", \"tcp.*\", \"sched.runqueue_latency\", \
         \"zfs.op_latency\"]",
        folder.display(),
    )
}

/// Nodes, and all that is between them and people.
pub struct Chain {
    /// On the node n-1.
    pub daemon: Daemon,
    /// What its configuration has after `[listen]`.
    pub more: String,
    /// Where its metrics go.
    pub collector_port: u16,
    pub collector: Option<Collector>,
    /// Who certifies n-2.
    pub authority: Authority,
    /// The certificate of n-2, which speaks TLS.
    pub certificate: tempfile::TempDir,
    /// The log lines that n-2 pushes.
    pub logs: Logs,
    /// On a node with a hostile name.
    pub planes: Planes,
    /// One that connects on n-1.
    pub unit: Unit,
    pub receiver: Receiver,
    pub mailbox: Mailbox,
    pub prometheus: Prometheus,
    /// What was caused so far.
    pub faults: Vec<Fault>,
    /// When the windows of its rules were cut.
    cut: Option<Instant>,
    _secured: Daemon,
    _alertmanager: Alertmanager,
    _spool: tempfile::TempDir,
}

impl Chain {
    /// `None`, and a line that says so, where it cannot be.
    pub fn start() -> Option<Self> {
        let logs = Logs::start()?;
        let unit = Unit::new();
        let spool = tempfile::tempdir().unwrap();
        let collector_port = free_port();
        let more = more(spool.path(), collector_port);
        let daemon = Daemon::start(&more)?;
        let authority = Authority::new("ours");
        let certificate = tempfile::tempdir().unwrap();
        let issued = authority.issue(&["n-2.example"]);
        issued.write(certificate.path(), "n-2");
        let path = certificate.path().display();
        let secured = Daemon::spawn(&format!(
            "tls_certificate = \"{path}/n-2.pem\"\ntls_key = \"{path}/n-2.key\"\n\
             [signals]\nenable = [\"self.*\"]\n{}",
            logs.configuration()
        ))?;
        let planes = Planes::start();
        let receiver = Receiver::new();
        let mailbox = Mailbox::new();
        let alertmanager = Alertmanager::start(&receiver, &mailbox);
        let ports = [daemon.port, secured.port, planes.port];
        let prometheus = prometheus(ports, alertmanager.port);
        Some(Self {
            daemon,
            more,
            collector_port,
            collector: None,
            authority,
            certificate,
            logs,
            planes,
            unit,
            receiver,
            mailbox,
            prometheus,
            faults: Vec::new(),
            cut: None,
            _secured: secured,
            _alertmanager: alertmanager,
            _spool: spool,
        })
    }

    /// Waits for the messages of a fault that began then, each to whom it must
    /// go, with these words in it: harmless to Slack if they are for a channel.
    pub fn pages(
        &mut self,
        begun: Instant,
        what: &'static str,
        alert: &'static str,
        to: &'static [&'static str],
        says: &str,
    ) {
        let came = to.iter().map(|&to| {
            let channel = to.starts_with('#').then(|| for_slack(says));
            let says = channel.as_deref().unwrap_or(says);
            self.receiver.wait(&format!("{alert} to {to}"), |message| {
                message.firing
                    && message.to == to
                    && message.is_about(alert)
                    && message.text.contains(says)
            })
        });
        let last = came.max().unwrap();
        let fault = Fault::new(what, alert, to, last.checked_duration_since(begun));
        println!("{fault}");
        self.faults.push(fault);
    }

    /// The fault behind an alert is no more.
    pub fn undone(&mut self, alert: &str) {
        let its = self.faults.iter_mut().filter(|fault| fault.alert == alert);
        for fault in its {
            fault.undone = Some(Instant::now());
        }
    }

    /// Waits until everybody who was told of a fault that is no more is told so.
    pub fn resolve(&mut self) {
        for fault in &mut self.faults {
            let (Some(undone), None) = (fault.undone, fault.resolved) else {
                continue;
            };
            let came = fault.to.iter().map(|&to| {
                let what = format!("the end of {} to {to}", fault.alert);
                self.receiver.wait(&what, |message| {
                    !message.firing
                        && message.to == to
                        && message.is_about(fault.alert)
                        && message.came > undone
                })
            });
            let came = came.max().unwrap();
            let cut = self.cut.map_or(came, |cut| cut.max(undone));
            fault.resolved = Some((came - undone, came.saturating_duration_since(cut)));
            println!("{fault}");
        }
    }

    /// Makes the windows of the rules, and those in which the daemon looks back, a
    /// fifteenth as long, so that what is over is soon forgotten. Prometheus keeps what it knows of an alert that has
    /// its name and labels still.
    pub fn cut_windows(&mut self) {
        let rules = self.prometheus.folder().join("rules");
        for file in fs::read_dir(rules).unwrap() {
            let path = file.unwrap().path();
            let mut text = fs::read_to_string(&path).unwrap();
            for (long, short) in [("2m", "8s"), ("5m", "20s"), ("10m", "40s"), ("15m", "1m")] {
                text = text.replace(&format!("[{long}]"), &format!("[{short}]"));
                text = text.replace(&format!("offset {long}"), &format!("offset {short}"));
            }
            fs::write(path, text).unwrap();
        }
        self.prometheus.reload();
        self.more += "\n[objectives]\nlook_back = \"20s\"\ntrouble = \"1m\"\n";
        self.daemon.configure(&self.more);
        self.daemon.signal(libc::SIGHUP);
        wait_for("the short windows", || {
            let rules = self.prometheus.ask("/api/v1/rules", "").to_string();
            rules.contains("[20s]") && !rules.contains("[5m]")
        });
        self.cut = Some(Instant::now());
    }

    /// Nobody was told that something ended, which goes on.
    pub fn goes_on(&self, alert: &str) {
        let told = self.receiver.told.lock().unwrap();
        let ended = |one: &&Message| !one.firing && one.is_about(alert);
        assert!(!told.iter().any(|one| ended(&one)), "{alert}: {told:#?}");
    }
}
