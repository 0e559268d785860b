//! What the source has done, counted.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

/// Counts since the source was started.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) shipped: AtomicU64,
    pub(super) own: AtomicU64,
    pub(super) filtered: AtomicU64,
    pub(super) rate_limited: AtomicU64,
    pub(super) redacted: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) unreadable: AtomicU64,
    pub(super) resyncs: AtomicU64,
    pub(super) restarts: AtomicU64,
    pub(super) gaps: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) cursor_resets: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) unsaved: AtomicU64,
    pub(super) last_time_ns: AtomicU64,
    pub(super) reading: AtomicBool,
    pub(super) behind: AtomicBool,
}

/// What [`Counters`] held at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines that the spool took.
    pub shipped: u64,
    /// Lines of our own process, which are not shipped.
    pub own: u64,
    /// Lines that the filter left out.
    pub filtered: u64,
    /// Lines that the rate limit left out.
    pub rate_limited: u64,
    /// Lines in which something was redacted.
    pub redacted: u64,
    /// Lines of which a part was longer than its room.
    pub cut: u64,
    /// Entries without a cursor or a time; they are passed over.
    pub unreadable: u64,
    /// How often journalctl's output was not understood, and the next entry
    /// looked for.
    pub resyncs: u64,
    /// How often journalctl ended, or could not be started, and will be
    /// started again.
    pub restarts: u64,
    /// How often entries were gone from the journal before they were read.
    pub gaps: u64,
    /// How many those were, as far as it is known.
    pub lost: u64,
    /// How often the kept cursor was of no use and the oldest entry was taken.
    pub cursor_resets: u64,
    /// How often the spool did not take a batch; it is given it again.
    pub refused: u64,
    /// How often the cursor could not be kept on disk.
    pub unsaved: u64,
    /// Time of the last entry that was read, in nanoseconds since 1970; 0:
    /// none yet.
    pub last_time_ns: u64,
    /// journalctl runs.
    pub reading: bool,
    /// Something that was read is not in the spool.
    pub behind: bool,
}

impl Counters {
    /// What they hold.
    pub fn read(&self) -> Counts {
        Counts {
            shipped: self.shipped.load(Relaxed),
            own: self.own.load(Relaxed),
            filtered: self.filtered.load(Relaxed),
            rate_limited: self.rate_limited.load(Relaxed),
            redacted: self.redacted.load(Relaxed),
            cut: self.cut.load(Relaxed),
            unreadable: self.unreadable.load(Relaxed),
            resyncs: self.resyncs.load(Relaxed),
            restarts: self.restarts.load(Relaxed),
            gaps: self.gaps.load(Relaxed),
            lost: self.lost.load(Relaxed),
            cursor_resets: self.cursor_resets.load(Relaxed),
            refused: self.refused.load(Relaxed),
            unsaved: self.unsaved.load(Relaxed),
            last_time_ns: self.last_time_ns.load(Relaxed),
            reading: self.reading.load(Relaxed),
            behind: self.behind.load(Relaxed),
        }
    }
}

impl Counts {
    /// All entries that were read.
    pub fn read(&self) -> u64 {
        self.shipped + self.own + self.filtered + self.rate_limited + self.unreadable
    }

    /// How old the last line is while something that was read is not in the
    /// spool, in seconds; else 0.
    pub fn lag_seconds(&self, now_ns: u64) -> f64 {
        if !self.behind || self.last_time_ns == 0 {
            return 0.0;
        }
        now_ns.saturating_sub(self.last_time_ns) as f64 / 1e9
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_of_what_is_still_to_come() {
        let counts = Counts {
            last_time_ns: 1_000_000_000,
            behind: true,
            ..Counts::default()
        };
        let lag = |counts: &Counts, now| counts.lag_seconds(now).to_string();
        assert_eq!(lag(&counts, 3_500_000_000), "2.5");
        assert_eq!(lag(&counts, 0), "0");
        let done = Counts {
            behind: false,
            ..counts
        };
        assert_eq!(lag(&done, 3_500_000_000), "0");
    }
}
