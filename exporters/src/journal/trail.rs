//! Which entries came, one after the other, and what is missing in between.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{counters::Counters, cursor::Cursor};

/// Where reading is.
#[derive(Debug)]
pub(super) struct Trail {
    last: Option<Cursor>,
    /// The next entry may be the last once more.
    resumed: bool,
    /// The last is not in the journal any more, and that is counted.
    gone: bool,
    counters: Arc<Counters>,
}

impl Trail {
    /// One without a place.
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            last: None,
            resumed: false,
            gone: false,
            counters,
        }
    }

    /// Goes on behind an entry.
    pub(super) fn behind(&mut self, last: Cursor) {
        self.last = Some(last);
    }

    /// The entry that came last.
    pub(super) fn last(&self) -> Option<&Cursor> {
        self.last.as_ref()
    }

    /// The journal is read anew, from the last entry on.
    pub(super) fn resume(&mut self) {
        self.resumed = true;
    }

    /// The last entry is not in the journal any more, nor one that journald
    /// numbered after it.
    pub(super) fn lose(&mut self) {
        if !std::mem::replace(&mut self.gone, true) {
            self.counters.gaps.fetch_add(1, Relaxed);
            tracing::warn!(
                cursor = self.last.as_ref().map(Cursor::as_str),
                "the entry that was read last is no longer in the journal: reading goes on at its \
                 time, and whether entries are missing is not known"
            );
        }
    }

    /// Goes on to an entry. False: it is the last one, once more.
    pub(super) fn step(&mut self, next: Cursor) -> bool {
        let resumed = std::mem::take(&mut self.resumed);
        let last = self.last.as_ref();
        if resumed && last.is_some_and(|last| last.is(&next)) {
            return false;
        }
        let missing = last.and_then(|last| last.between(&next)).unwrap_or(0);
        let counted = std::mem::take(&mut self.gone);
        self.last = Some(next);
        if missing > 0 {
            self.counters.lost.fetch_add(missing, Relaxed);
            self.counters.gaps.fetch_add(u64::from(!counted), Relaxed);
            tracing::warn!(
                entries = missing,
                "entries were gone from the journal before they were read"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(sequence: &str, number: u64) -> Cursor {
        let text = format!("s={sequence};i={number:x};b=1;m={number:x};t={number:x};x=1");
        Cursor::new(text.as_bytes()).unwrap()
    }

    fn trail() -> (Trail, impl Fn() -> (u64, u64)) {
        let counters = Arc::new(Counters::default());
        let trail = Trail::new(counters.clone());
        let gaps = move || {
            let counts = counters.read();
            (counts.gaps, counts.lost)
        };
        (trail, gaps)
    }

    #[test]
    fn the_last_entry_comes_again_only_after_it_was_asked_for() {
        let (mut trail, gaps) = trail();
        assert!(trail.step(cursor("a", 7)));
        trail.resume();
        assert!(!trail.step(cursor("a", 7)));
        assert!(trail.step(cursor("a", 8)));
        trail.behind(cursor("a", 8));
        trail.resume();
        assert!(!trail.step(cursor("a", 8)));
        // Lines of one write may be alike in all but their numbers.
        assert!(trail.step(cursor("a", 9)));
        assert_eq!(gaps(), (0, 0));
    }

    #[test]
    fn numbers_that_are_left_out_are_missing() {
        let (mut trail, gaps) = trail();
        trail.behind(cursor("a", 7));
        trail.step(cursor("a", 8));
        assert_eq!(gaps(), (0, 0));
        trail.step(cursor("a", 12));
        assert_eq!(gaps(), (1, 3));
        // Another sequence, of which nothing is known.
        for next in [cursor("b", 90), cursor("b", 91), cursor("a", 13)] {
            trail.step(next);
        }
        assert_eq!(gaps(), (1, 3));
    }

    #[test]
    fn an_entry_that_is_gone_is_one_gap() {
        let (mut trail, gaps) = trail();
        trail.behind(cursor("a", 7));
        trail.lose();
        trail.lose();
        assert_eq!(gaps(), (1, 0));
        trail.step(cursor("a", 10));
        assert_eq!(gaps(), (1, 2));
        trail.step(cursor("a", 12));
        assert_eq!(gaps(), (2, 3));
        // Numbers that are given again.
        trail.lose();
        trail.step(cursor("a", 5));
        trail.step(cursor("a", 6));
        assert_eq!(gaps(), (3, 3));
    }
}
