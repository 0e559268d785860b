//! A node that pushes its journal to a Loki that goes away.

use std::time::Instant;

use super::chain::Chain;
use crate::{common::wait_for, double::Double, journald::Journald, pushes::Receiver as Collector};

/// The smallest that a spool may be.
const SPOOL: usize = 8 << 20;
/// Of a log line.
const LINE: usize = 64 << 10;

/// A journal, a spool, and a Loki.
pub struct Logs {
    journald: Journald,
    spool: tempfile::TempDir,
    port: u16,
    loki: Option<Double>,
}

impl Logs {
    /// `None`, and a line that says why: there can be no journal here.
    pub fn start() -> Option<Self> {
        let loki = Double::start();
        Some(Self {
            journald: Journald::start()?,
            spool: tempfile::tempdir().unwrap(),
            port: loki.port,
            loki: Some(loki),
        })
    }

    /// Sections of the daemon's configuration.
    pub fn configuration(&self) -> String {
        format!(
            "[spool]\ndirectory = \"{}\"\nsize = \"8MiB\"\n\
             [loki]\nurl = \"http://127.0.0.1:{}\"\nbatch_age = \"10ms\"\n\
             [journal]\nenabled = true\nsince = \"oldest\"\ndirectory = \"{}\"\nrate = 0",
            self.spool.path().display(),
            self.port,
            self.journald.directory().display()
        )
    }

    /// Logs so many bytes.
    fn log(&self, bytes: usize) {
        let line = vec![b'x'; LINE];
        for _ in 0..bytes / LINE {
            self.journald.send(&[("MESSAGE", &line)]);
        }
    }
}

impl Chain {
    /// Loki goes away while much is logged. It took something a moment ago, so
    /// that it is the spool that pages, which a receiver that is long away keeps
    /// quiet.
    pub fn full_spool(&mut self) {
        self.logs.log(LINE);
        let taken =
            "increase(kldtrace_push_requests_total{destination=\"loki\",result=\"taken\"}[5m])";
        wait_for("a push that Prometheus knows was taken", || {
            !self.prometheus.query(&format!("{taken} > 0")).is_empty()
        });
        self.logs.loki = None;
        let begun = Instant::now();
        self.logs.log(SPOOL * 9 / 10);
        self.pages(
            begun,
            "Loki is away, and 7 MiB are logged with a spool of 8",
            "KldtraceSpoolFilling",
            &["#platform"],
            "The spool of n-2 is filling",
        );
        let begun = Instant::now();
        self.logs.log(SPOOL / 2);
        self.pages(
            begun,
            "Loki is still away, and 4 MiB more are logged",
            "KldtracePushLost",
            &["#platform"],
            "Entries of n-2 for loki are lost: full",
        );
        self.logs.loki = Some(Double::at(self.logs.port));
        self.undone("KldtraceSpoolFilling");
        self.undone("KldtracePushLost");
    }

    /// Somebody takes the metrics that nobody took.
    pub fn taken_pushes(&mut self) {
        self.collector = Some(Collector::at(self.collector_port));
        self.undone("KldtracePushDown");
    }
}
