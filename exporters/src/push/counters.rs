//! What came of pushes, counted.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{SystemTime, UNIX_EPOCH},
};

use super::Verdict;

/// Counts of one destination since the process began.
#[derive(Debug, Default)]
pub struct Counters {
    taken: AtomicU64,
    refused: AtomicU64,
    requests_taken: AtomicU64,
    requests_refused: AtomicU64,
    requests_later: AtomicU64,
    last_taken: AtomicU64,
}

/// What [`Counters`] held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Entries that the receiver has taken.
    pub taken: u64,
    /// Entries that it never will.
    pub refused: u64,
    /// Requests of which something was taken.
    pub requests_taken: u64,
    /// Requests that were refused for what was in them.
    pub requests_refused: u64,
    /// Requests that were, or will be, tried again.
    pub requests_later: u64,
    /// When something was last taken, in seconds since 1970 (UTC); 0: never.
    pub last_taken: u64,
}

impl Counters {
    /// Takes in the answer to a request with so many entries.
    pub(super) fn answered(&self, verdict: &Verdict, entries: u64) {
        let (taken, refused) = match verdict {
            Verdict::Taken => (entries, 0),
            Verdict::Partly { refused, .. } => {
                (entries.saturating_sub(*refused), *refused.min(&entries))
            }
            Verdict::Later { .. } => {
                self.requests_later.fetch_add(1, Relaxed);
                return;
            }
            Verdict::Refused { .. } => {
                self.requests_refused.fetch_add(1, Relaxed);
                // Of more than one, the halves are tried.
                self.refused.fetch_add(u64::from(entries == 1), Relaxed);
                return;
            }
        };
        self.requests_taken.fetch_add(1, Relaxed);
        self.taken.fetch_add(taken, Relaxed);
        self.refused.fetch_add(refused, Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        self.last_taken
            .store(now.map_or(0, |now| now.as_secs()), Relaxed);
    }

    /// What they hold.
    pub fn read(&self) -> Counts {
        Counts {
            taken: self.taken.load(Relaxed),
            refused: self.refused.load(Relaxed),
            requests_taken: self.requests_taken.load(Relaxed),
            requests_refused: self.requests_refused.load(Relaxed),
            requests_later: self.requests_later.load(Relaxed),
            last_taken: self.last_taken.load(Relaxed),
        }
    }
}
