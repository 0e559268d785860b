//! What was read of the journal, and what became of it. Without [journal]
//! there is nothing to tell.

use std::time::{SystemTime, UNIX_EPOCH};

use kldtrace_exporters::{
    journal::Counts,
    model::{Kind, Unit},
};

use super::{Cost, Numbers, Signal, Subject};
use crate::signals::own::Facts;

const SOURCE: &str = "exporters/src/journal/source.rs";
const STAGE: &str = "exporters/src/journal/stage.rs";
const TRAIL: &str = "exporters/src/journal/trail.rs";

fn counts(facts: &Facts) -> Option<&Counts> {
    facts.push.as_ref()?.journal.as_ref()
}

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "self.journal_entries",
        subject: Subject::Own,
        metric: "kldtrace_journal_entries",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Entries of the journal that were read: shipped into the spool, left out by the filter, by the rate limit or as our own, or unreadable: without a cursor or a time.",
        labels: &["result"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: STAGE,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                emit.integer(&["shipped"], counts.shipped);
                emit.integer(&["filtered"], counts.filtered);
                emit.integer(&["rate_limited"], counts.rate_limited);
                emit.integer(&["own"], counts.own);
                emit.integer(&["unreadable"], counts.unreadable);
            }
        }),
    },
    Signal {
        name: "self.journal_changed",
        subject: Subject::Own,
        metric: "kldtrace_journal_changed",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Lines of the journal of which something was redacted, or cut off as too long.",
        labels: &["change"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: STAGE,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                emit.integer(&["redacted"], counts.redacted);
                emit.integer(&["cut"], counts.cut);
            }
        }),
    },
    Signal {
        name: "self.journal_gaps",
        subject: Subject::Own,
        metric: "kldtrace_journal_gaps",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "How often entries were gone from the journal before they were read: it had no room for them, or its files were replaced.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: TRAIL,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                emit.integer(&[], counts.gaps);
            }
        }),
    },
    Signal {
        name: "self.journal_lost",
        subject: Subject::Own,
        metric: "kldtrace_journal_lost",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Entries that were gone from the journal before they were read, by journald's own numbers; it does not tell of all gaps.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: TRAIL,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                emit.integer(&[], counts.lost);
            }
        }),
    },
    Signal {
        name: "self.journal_faults",
        subject: Subject::Own,
        metric: "kldtrace_journal_faults",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Faults on the way: journalctl ended or could not be started, its output was not understood up to the next entry, the spool took no batch, or the place in the journal could not be kept or, at a start, not be read: lines come twice then. What is missing for it is in kldtrace_journal_lost.",
        labels: &["reason"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SOURCE,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                emit.integer(&["journalctl"], counts.restarts);
                emit.integer(&["output"], counts.resyncs);
                emit.integer(&["spool"], counts.refused);
                emit.integer(&["place_kept"], counts.unsaved);
                emit.integer(&["place_read"], counts.cursor_resets);
            }
        }),
    },
    Signal {
        name: "self.journal_reading",
        subject: Subject::Own,
        metric: "kldtrace_journal_reading",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "1 while journalctl runs, else 0.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SOURCE,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                emit.integer(&[], u64::from(counts.reading));
            }
        }),
    },
    Signal {
        name: "self.journal_newest",
        subject: Subject::Own,
        metric: "kldtrace_journal_newest_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "When the entry was written that was read last: seconds since 1970.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: STAGE,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts).filter(|counts| counts.last_time_ns > 0) {
                emit.float(&[], counts.last_time_ns as f64 / 1e9);
            }
        }),
    },
    Signal {
        name: "self.journal_lag",
        subject: Subject::Own,
        metric: "kldtrace_journal_lag_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "Age of the newest entry that was read, while there are some that are not yet in the spool; else 0.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SOURCE,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(counts) = counts(facts) {
                let now = SystemTime::now().duration_since(UNIX_EPOCH);
                let now = now.map_or(0, |now| now.as_nanos() as u64);
                emit.float(&[], counts.lag_seconds(now));
            }
        }),
    },
];
