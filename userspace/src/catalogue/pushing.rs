//! What has come of pushes and of the spool before them. Without [loki] and
//! [otlp] there is nothing to tell.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Cost, Numbers, Signal, Subject};

const SPOOL: &str = "exporters/src/spool/mod.rs";
const PUSH: &str = "exporters/src/push/mod.rs";

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "self.push_entries",
        subject: Subject::Own,
        metric: "kldtrace_push_entries",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Entries that a destination took, or refused for good: those are in refused.jsonl beside the spool.",
        labels: &["destination", "result"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: PUSH,
        numbers: Numbers::Facts(|facts, emit| {
            for one in facts.push.iter().flat_map(|push| &push.destinations) {
                emit.integer(&[one.name, "taken"], one.counts.taken);
                emit.integer(&[one.name, "refused"], one.counts.refused);
            }
        }),
    },
    Signal {
        name: "self.push_requests",
        subject: Subject::Own,
        metric: "kldtrace_push_requests",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Requests to a destination: taken, refused for what was in them, or to be tried again later.",
        labels: &["destination", "result"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: PUSH,
        numbers: Numbers::Facts(|facts, emit| {
            for one in facts.push.iter().flat_map(|push| &push.destinations) {
                emit.integer(&[one.name, "taken"], one.counts.requests_taken);
                emit.integer(&[one.name, "refused"], one.counts.requests_refused);
                emit.integer(&[one.name, "later"], one.counts.requests_later);
            }
        }),
    },
    Signal {
        name: "self.push_lost",
        subject: Subject::Own,
        metric: "kldtrace_push_lost",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Entries that a destination never got: the spool was full and they were the oldest, or the disk had damaged them.",
        labels: &["destination", "reason"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SPOOL,
        numbers: Numbers::Facts(|facts, emit| {
            for one in facts.push.iter().flat_map(|push| &push.destinations) {
                emit.integer(&[one.name, "full"], one.standing.dropped);
                emit.integer(&[one.name, "damaged"], one.standing.damaged);
            }
        }),
    },
    Signal {
        name: "self.push_waiting",
        subject: Subject::Own,
        metric: "kldtrace_push_waiting",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Entries in the spool that a destination has not taken yet.",
        labels: &["destination"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SPOOL,
        numbers: Numbers::Facts(|facts, emit| {
            for one in facts.push.iter().flat_map(|push| &push.destinations) {
                emit.integer(&[one.name], one.standing.waiting);
            }
        }),
    },
    Signal {
        name: "self.push_last_taken",
        subject: Subject::Own,
        metric: "kldtrace_push_last_taken_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "When a destination last took something: seconds since 1970.",
        labels: &["destination"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: PUSH,
        numbers: Numbers::Facts(|facts, emit| {
            for one in facts.push.iter().flat_map(|push| &push.destinations) {
                if one.counts.last_taken > 0 {
                    emit.float(&[one.name], one.counts.last_taken as f64);
                }
            }
        }),
    },
    Signal {
        name: "self.push_events_missed",
        subject: Subject::Own,
        metric: "kldtrace_push_events_missed",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Events that were gone from [limits] events before the spool had taken them: they came too fast, or the disk was full.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/push/outbox.rs",
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(push) = &facts.push {
                emit.integer(&[], push.missed);
            }
        }),
    },
    Signal {
        name: "self.spool_size",
        subject: Subject::Own,
        metric: "kldtrace_spool_size_bytes",
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        help: "Bytes in the spool.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SPOOL,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(push) = &facts.push {
                emit.integer(&[], push.bytes);
            }
        }),
    },
    Signal {
        name: "self.spool_size_max",
        subject: Subject::Own,
        metric: "kldtrace_spool_size_max_bytes",
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        help: "Bytes that the spool may have: [spool] size.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SPOOL,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(push) = &facts.push {
                emit.integer(&[], push.limit);
            }
        }),
    },
    Signal {
        name: "self.spool_failures",
        subject: Subject::Own,
        metric: "kldtrace_spool_failures",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Writes to the spool that the disk did not take; each is tried again.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: SPOOL,
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(push) = &facts.push {
                emit.integer(&[], push.failures);
            }
        }),
    },
];
