//! What is told as an event, one row for each kind.

use super::Subject;

/// A kind of event: everything that is known of it before one comes.
#[derive(Debug)]
pub struct EventKind {
    /// The group that it belongs to.
    pub subject: Subject,
    /// What happened.
    pub kind: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Names of its labels, whose values come from closed sets.
    pub labels: &'static [&'static str],
    /// Names of its fields; some have them only where they apply.
    pub fields: &'static [&'static str],
    /// The signals whose programs tell it.
    pub signals: &'static [&'static str],
}

/// Every kind of event, by subject.
pub const EVENTS: &[EventKind] = &[EventKind {
    subject: Subject::Zfs,
    kind: "slow_operation",
    help: "A file operation on a dataset took longer than [zfs] slow_operation. Its stages add up to duration_seconds exactly.",
    labels: &["pool", "dataset", "op", "sync", "unit"],
    fields: &[
        "duration_seconds",
        "offset_class",
        "process",
        "command",
        "errno",
        "bytes",
        "arc_miss_seconds",
        "zil_commit_seconds",
        "throttle_seconds",
        "txg_wait_seconds",
        "other_wait_seconds",
        "runqueue_seconds",
        "cpu_seconds",
    ],
    signals: &["zfs.slow_operations", "zfs.stage_latency"],
}];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_name_signals_of_their_subject() {
        for event in EVENTS {
            assert!(event.help.ends_with('.'), "{}", event.kind);
            assert!(!event.signals.is_empty(), "{}", event.kind);
            for name in event.signals {
                let signal = super::super::find(name).unwrap_or_else(|| panic!("no {name}"));
                assert_eq!(signal.subject, event.subject, "{name}");
            }
        }
    }
}
