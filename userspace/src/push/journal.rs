//! The thread that reads the journal into the spool.

use std::{sync::Arc, thread::JoinHandle};

use anyhow::Context as _;
use kldtrace_exporters::{
    journal::{Counters, Own, Settings, Since, Source, filter, rate::Limit, redact},
    spool::Spool,
};
use tokio::sync::watch;

use crate::config::{self, Config, JournalSince};

/// The running thread.
pub(super) struct Journal {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Journal {
    /// Begins to read, if the configuration wants that.
    ///
    /// # Errors
    /// When a rule of redaction is none, or there can be no thread.
    pub(super) fn start(
        config: &Config,
        spool: &Spool,
        counters: Option<&Arc<Counters>>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(counters) = counters else {
            return Ok(None);
        };
        let source = Source::new(settings(config), spool.clone(), counters.clone());
        let source = source.context("[journal]")?;
        let (stop, stopped) = watch::channel(false);
        // Reading waits for the disk, and nobody else is to wait with it.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || runtime.block_on(source.run(stopped)))
            .context("no thread for the journal")?;
        Ok(Some(Self { stop, thread }))
    }

    /// Ends it, after what was read is in the spool.
    pub(super) fn end(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("reading the journal ended by a fault of its own");
        }
    }
}

fn settings(config: &Config) -> Settings {
    let journal = &config.journal;
    // Both are at most a million.
    let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    Settings {
        program: "journalctl".into(),
        directory: journal.directory.clone(),
        since: match journal.since {
            JournalSince::Now => Since::Now,
            JournalSince::Boot => Since::Boot,
            JournalSince::Oldest => Since::Oldest,
        },
        place: config.spool.directory.join("journal.cursor"),
        host: config::host_name(),
        own: Own::find(),
        filter: filter::Settings {
            units: journal.units.clone(),
            exclude_units: journal.exclude_units.clone(),
            identifiers: journal.identifiers.clone(),
            exclude_identifiers: journal.exclude_identifiers.clone(),
            priority: journal.priority as u8,
        },
        limit: (journal.rate > 0).then(|| Limit {
            per_second: number(journal.rate),
            burst: number(journal.burst),
        }),
        redact: redact::Settings {
            off: journal.redact_off.clone(),
            rules: journal.redact.clone(),
        },
        line: journal.line_size as usize,
        age: journal.batch_age,
    }
}
