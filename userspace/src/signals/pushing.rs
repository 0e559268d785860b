//! What has come of pushes and of the spool before them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use kldtrace_exporters::{
    journal,
    push::{Counters, Counts},
    spool::{Spool, Standing},
};

/// The spool and its destinations, while they run.
#[derive(Debug)]
pub struct Pushing {
    /// Where what is pushed waits.
    pub spool: Spool,
    /// Most bytes of it.
    pub limit: u64,
    /// Each destination's counts, by its reader's name.
    pub destinations: Vec<(&'static str, Arc<Counters>)>,
    /// See [`Pushing::miss`].
    pub missed: AtomicU64,
    /// The journal's counts, if it is read.
    pub journal: Option<Arc<journal::Counters>>,
}

/// The same at one moment.
#[derive(Clone, Debug)]
pub struct PushState {
    /// Bytes in the spool.
    pub bytes: u64,
    /// Most bytes of it.
    pub limit: u64,
    /// Appends that the disk did not take; each was tried again.
    pub failures: u64,
    /// Events that were gone before they could be spooled.
    pub missed: u64,
    /// The destinations.
    pub destinations: Vec<DestinationState>,
    /// The journal's counts, if it is read.
    pub journal: Option<journal::Counts>,
}

/// One destination at one moment.
#[derive(Clone, Debug)]
pub struct DestinationState {
    /// Its name: `loki`, `otlp`.
    pub name: &'static str,
    /// Its requests and entries.
    pub counts: Counts,
    /// What waits for it, and what it has lost.
    pub standing: Standing,
}

impl Pushing {
    /// So many events cannot be spooled any more.
    pub fn miss(&self, events: u64) {
        self.missed.fetch_add(events, Relaxed);
    }

    /// As it is now.
    pub fn state(&self) -> PushState {
        let spool = self.spool.statistics();
        let standing = |name| {
            let mut readers = spool.readers.iter();
            let found = readers.find(|(reader, _)| *reader == name);
            found.map(|(_, standing)| *standing).unwrap_or_default()
        };
        let destinations = self.destinations.iter();
        PushState {
            bytes: spool.bytes,
            limit: self.limit,
            failures: spool.failed,
            missed: self.missed.load(Relaxed),
            journal: self.journal.as_ref().map(|journal| journal.read()),
            destinations: destinations
                .map(|(name, counters)| DestinationState {
                    name,
                    counts: counters.read(),
                    standing: standing(*name),
                })
                .collect(),
        }
    }
}
