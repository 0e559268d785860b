//! What a receiver has of the entries at hand.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use super::request::{Partial, Signal};
use crate::push::{Entry, Verdict};

/// What is known of entries that are not through yet, by their hashes: when
/// the receiver takes the logs of a push and not the spans, the next try is of
/// the spans alone. Every entry of a batch is through sooner or later, and
/// forgotten then: no more than one batch is in there.
#[derive(Default)]
pub struct Progress {
    hasher: RandomState,
    entries: HashMap<u64, Known>,
    /// What the receiver last said of something that it took.
    words: String,
    /// Whether that was a warning which is not handed on yet.
    warned: bool,
}

/// What is known of an entry.
#[derive(Default)]
struct Known {
    taken: [bool; Signal::ALL.len()],
    /// Something of it was rejected.
    refused: bool,
}

impl Progress {
    /// The hash of an entry, which is the same for each try.
    pub fn key(&self, entry: &Entry<'_>) -> u64 {
        self.hasher.hash_one((entry.lane, entry.bytes))
    }

    /// Whether the receiver still lacks what an entry has of a signal.
    pub fn lacks(&self, signal: Signal, key: u64) -> bool {
        let known = self.entries.get(&key);
        known.is_none_or(|known| !known.taken[signal as usize])
    }

    /// The receiver took what `keys` have of a signal, but for what `partial`
    /// says. It does not say which: so many of them count as refused, and none
    /// of them twice. What it rejects may be less than an entry: one span of
    /// several, one point of many.
    pub fn took(&mut self, signal: Signal, keys: &[u64], partial: Partial) {
        let mut rejected = u64::try_from(partial.rejected).unwrap_or(0);
        if rejected > 0 {
            let what = signal.items();
            self.words = format!("{rejected} {what} rejected: {}", partial.message);
        } else if !partial.message.is_empty() {
            self.words = partial.message;
            self.warned = true;
        }
        for key in keys {
            let known = self.entries.entry(*key).or_default();
            known.taken[signal as usize] = true;
            if rejected > 0 && !known.refused {
                known.refused = true;
                rejected -= 1;
            }
        }
    }

    /// Forgets entries that are through, and says what became of them.
    pub fn through(&mut self, keys: &[u64]) -> Verdict {
        let known = keys.iter().filter_map(|key| self.entries.remove(key));
        let refused = known.filter(|known| known.refused).count() as u64;
        let warned = std::mem::take(&mut self.warned);
        if refused == 0 && !warned {
            return Verdict::Taken;
        }
        Verdict::Partly {
            refused,
            why: self.words.clone(),
        }
    }

    /// Forgets an entry that is set aside.
    pub fn forget(&mut self, key: u64) {
        self.entries.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(rejected: i64, message: &str) -> Partial {
        Partial {
            rejected,
            message: message.to_owned(),
        }
    }

    fn partly(refused: u64, why: &str) -> Verdict {
        let why = why.to_owned();
        Verdict::Partly { refused, why }
    }

    #[test]
    fn what_is_rejected_counts_once_for_each_entry() {
        let mut progress = Progress::default();
        let keys = [1, 2, 3];
        progress.took(Signal::Logs, &keys, partial(1, "old"));
        assert!(!progress.lacks(Signal::Logs, 2) && progress.lacks(Signal::Traces, 2));
        // The spans of one entry, or of two.
        progress.took(Signal::Traces, &keys, partial(2, "odd"));
        // Halves: what was rejected stays with its entry.
        assert_eq!(
            progress.through(&keys[..1]),
            partly(1, "2 spans rejected: odd")
        );
        assert_eq!(
            progress.through(&keys[1..]),
            partly(2, "2 spans rejected: odd")
        );
        progress.took(Signal::Logs, &keys, partial(9, "all"));
        assert_eq!(
            progress.through(&keys),
            partly(3, "9 log records rejected: all")
        );
        for rejected in [0, -1] {
            progress.took(Signal::Logs, &keys, partial(rejected, ""));
            assert_eq!(progress.through(&keys), Verdict::Taken);
        }
        assert!(progress.entries.is_empty());
    }

    #[test]
    fn a_warning_is_handed_on_once() {
        let mut progress = Progress::default();
        progress.took(Signal::Metrics, &[1], partial(0, "slow down"));
        assert_eq!(progress.through(&[1]), partly(0, "slow down"));
        progress.took(Signal::Metrics, &[1], Partial::default());
        assert_eq!(progress.through(&[1]), Verdict::Taken);
    }

    #[test]
    fn what_is_set_aside_is_forgotten() {
        let mut progress = Progress::default();
        progress.took(Signal::Logs, &[1], partial(1, "old"));
        progress.forget(1);
        assert!(progress.entries.is_empty());
        assert_eq!(progress.through(&[1]), Verdict::Taken);
    }
}
