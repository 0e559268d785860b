//! What is told as an event, one row for each kind.

use kldtrace_exporters::{model::Event, record::Severity};

use super::Subject;

/// A kind of event: everything that is known of it before one comes.
#[derive(Debug)]
pub struct EventKind {
    /// The group that it belongs to.
    pub subject: Subject,
    /// What happened.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// One sentence for people.
    pub help: &'static str,
    /// Names of its labels, whose values come from closed sets.
    pub labels: &'static [&'static str],
    /// Names of its fields; some have them only where they apply.
    pub fields: &'static [&'static str],
    /// The signals whose programs tell it.
    pub signals: &'static [&'static str],
    /// The histogram that has its duration among others, and the field that
    /// is this duration: there the event is an exemplar.
    pub exemplar: Option<(&'static str, &'static str)>,
}

/// Every kind of event, by subject.
pub const EVENTS: &[EventKind] = &[
    ZFS_SLOW,
    ZFS_REPORT,
    HANDSHAKE,
    HANDSHAKE_FAILURE,
    PLANE_PACKET,
];

const ZFS_SLOW: EventKind = EventKind {
    subject: Subject::Zfs,
    kind: "slow_operation",
    severity: Severity::Warn,
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
    exemplar: Some(("zfs.op_latency", "duration_seconds")),
};

const ZFS_REPORT: EventKind = EventKind {
    subject: Subject::Zfs,
    kind: "report",
    severity: Severity::Error,
    help: "ZFS reports trouble: a wrong checksum, a slow or hung request, a failure. As zpool events has it: repetitions, and what is more than ZFS's own limits in a second, are counted only.",
    labels: &["pool", "vdev", "class"],
    fields: &[
        "type",
        "priority",
        "bytes",
        "offset",
        "objset",
        "object",
        "device_seconds",
        "errno",
    ],
    signals: &[
        "zfs.vdev_checksum_errors",
        "zfs.vdev_slow_requests",
        "zfs.vdev_hung_requests",
        "zfs.reports",
    ],
    exemplar: None,
};

const HANDSHAKE: EventKind = EventKind {
    subject: Subject::Wireguard,
    kind: "handshake",
    severity: Severity::Info,
    help: "A handshake was completed; reason is why it began, seconds what it took.",
    labels: &["interface", "plane", "peer", "role"],
    fields: &["public_key", "address", "seconds", "reason"],
    signals: &["wireguard.handshakes"],
    exemplar: Some(("wireguard.handshake_latency", "seconds")),
};

const HANDSHAKE_FAILURE: EventKind = EventKind {
    subject: Subject::Wireguard,
    kind: "handshake_failure",
    severity: Severity::Warn,
    help: "A message of a handshake had no answer or was refused. The key of somebody who is no peer is theirs.",
    labels: &["interface", "plane", "peer", "reason"],
    fields: &["public_key", "address", "attempts"],
    signals: &["wireguard.handshake_failures"],
    exemplar: None,
};

const PLANE_PACKET: EventKind = EventKind {
    subject: Subject::Planes,
    kind: "packet",
    severity: Severity::Warn,
    help: "A packet was dropped on a plane, or would be if it were not in audit mode. Each CPU tells of 50 in a second; sampled is the share of packets that were told around this one.",
    labels: &["plane", "interface", "rule", "verdict", "reason"],
    fields: &[
        "source",
        "destination",
        "protocol",
        "source_port",
        "destination_port",
        "tcp_flags",
        "bytes",
        "packet",
        "generation",
        "sampled",
    ],
    signals: &["planes.packets"],
    exemplar: None,
};

/// What is known of an event's kind. A kind that is not here, or has other
/// labels or fields, does not exist: the tests of those who tell hold each
/// event against it.
pub fn told(event: &Event) -> Option<&'static EventKind> {
    let row = EVENTS
        .iter()
        .find(|row| row.subject.as_str() == event.subject && row.kind == event.kind)?;
    let labels = event.labels.iter().map(|(name, _)| &**name);
    let mut fields = event.fields.iter().map(|(name, _)| &**name);
    let fits = labels.eq(row.labels.iter().copied()) && fields.all(|f| row.fields.contains(&f));
    fits.then_some(row)
}

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
