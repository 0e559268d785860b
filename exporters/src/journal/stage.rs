//! What becomes of an entry: left out, or a record on its way into the spool.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    counters::Counters,
    export::Entry,
    filter,
    line::{self, Line},
    own::Own,
    rate::Limiter,
    redact::Redactor,
    ticks::Ticks,
};
use crate::{push::Lane, spool::Parcel};

/// Most words on lines that were left out, in one batch.
pub(super) const WORDS: usize = 32;

/// All that is done to lines, with what it remembers.
#[derive(Debug)]
pub(super) struct Stage {
    /// This node's host name.
    pub(super) host: String,
    pub(super) own: Option<Own>,
    pub(super) filter: filter::Settings,
    pub(super) limiter: Option<Limiter>,
    pub(super) redactor: Redactor,
    /// Longest line in bytes.
    pub(super) line: usize,
    pub(super) ticks: Ticks,
    pub(super) counters: Arc<Counters>,
}

impl Stage {
    /// Adds the entry's record to the parcel, if it is to be shipped, and says
    /// whether it is.
    pub(super) fn take(&mut self, entry: &Entry, parcel: &mut Parcel) -> bool {
        let counters = &self.counters;
        let Some(mut line) = Line::new(entry, &self.host) else {
            counters.unreadable.fetch_add(1, Relaxed);
            return false;
        };
        counters.last_time_ns.store(line.time_ns, Relaxed);
        let left_out = if self.own.as_ref().is_some_and(|own| own.wrote(entry)) {
            Some(&counters.own)
        } else if !self.filter.passes(line.about()) {
            Some(&counters.filtered)
        } else if !self.admits(&line) {
            Some(&self.counters.rate_limited)
        } else {
            None
        };
        if let Some(counter) = left_out {
            counter.fetch_add(1, Relaxed);
            return false;
        }
        let redacted = line.redact(&self.redactor);
        let cut = line.cut(self.line) || entry.cut;
        self.counters
            .redacted
            .fetch_add(u64::from(redacted), Relaxed);
        self.counters.cut.fetch_add(u64::from(cut), Relaxed);
        line.time_ns = self.ticks.place(line.time_ns);
        parcel.add(Lane::Journal, |out| line.record().encode(out));
        true
    }

    fn admits(&mut self, line: &Line<'_>) -> bool {
        let limiter = self.limiter.as_mut();
        limiter.is_none_or(|limiter| limiter.admits(line.about().unit, line.time_ns))
    }

    /// Adds words on what the rate limit left out since the last ones.
    pub(super) fn left_out(&mut self, parcel: &mut Parcel) {
        let Some(limiter) = &mut self.limiter else {
            return;
        };
        let mut body = String::new();
        for what in limiter.left_out(WORDS) {
            let record = line::left_out(&what, &mut body);
            parcel.add(Lane::Journal, |out| record.encode(out));
        }
    }
}
