//! All that is between a fault and people.

use std::{fs, path::Path, time::Instant};

use super::{
    alertmanager::{Alertmanager, export},
    planes::Planes,
    receiver::Receiver,
    spool::Logs,
    table::Fault,
};
use crate::{
    authority::Authority,
    common::{Daemon, free_port},
    prometheus::Prometheus,
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
    let targets = ports.iter().zip(["n-1", "n-2", "n-3"]).map(|(port, node)| {
        let scheme = if node == "n-2" { "https" } else { "http" };
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

/// Nodes, and all that is between them and people.
pub struct Chain {
    /// On the node n-1.
    pub daemon: Daemon,
    /// What its configuration has after `[listen]`.
    pub more: String,
    /// Who certifies n-2.
    pub authority: Authority,
    /// The certificate of n-2, which speaks TLS.
    pub certificate: tempfile::TempDir,
    /// The log lines that n-2 pushes.
    pub logs: Logs,
    /// The node n-3.
    pub planes: Planes,
    pub receiver: Receiver,
    pub prometheus: Prometheus,
    /// What was caused so far.
    pub faults: Vec<Fault>,
    _secured: Daemon,
    _alertmanager: Alertmanager,
    _spool: tempfile::TempDir,
}

impl Chain {
    /// `None`, and a line that says so, where it cannot be.
    pub fn start() -> Option<Self> {
        let logs = Logs::start()?;
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
             [signals]\nenable = [\"self.*\"]\n{}",
            logs.configuration()
        ))?;
        let planes = Planes::start();
        let receiver = Receiver::new();
        let alertmanager = Alertmanager::start(&receiver);
        let ports = [daemon.port, secured.port, planes.port];
        let prometheus = prometheus(ports, alertmanager.port);
        Some(Self {
            daemon,
            more,
            authority,
            certificate,
            logs,
            planes,
            receiver,
            prometheus,
            faults: Vec::new(),
            _secured: secured,
            _alertmanager: alertmanager,
            _spool: spool,
        })
    }

    /// Waits for the messages of a fault that began then, each to whom it must
    /// go, with these words in it.
    pub fn pages(
        &mut self,
        begun: Instant,
        what: &'static str,
        alert: &'static str,
        to: &'static [&'static str],
        says: &str,
    ) {
        let came = to.iter().map(|&to| {
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
}
