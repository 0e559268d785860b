//! What the daemon's listeners, certificates and collectors have come to.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Cost, Numbers, Signal, Subject};

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "self.connections",
        subject: Subject::Own,
        metric: "kldtrace_connections",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Connections that a listener of the daemon holds.",
        labels: &["listener"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/daemon/serve/desk.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for listener in &facts.listeners {
                emit.integer(&[listener.name], listener.open);
            }
        }),
    },
    Signal {
        name: "self.connections_max",
        subject: Subject::Own,
        metric: "kldtrace_connections_max",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Connections that a listener may hold: [listen] connections.",
        labels: &["listener"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/daemon/serve/desk.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for listener in &facts.listeners {
                emit.integer(&[listener.name], listener.limit);
            }
        }),
    },
    Signal {
        name: "self.connections_dropped",
        subject: Subject::Own,
        metric: "kldtrace_connections_dropped",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Connections that the daemon ended, by why.",
        labels: &["listener", "reason"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/signals/serving.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for listener in &facts.listeners {
                for (reason, count) in &listener.dropped {
                    emit.integer(&[listener.name, reason], *count);
                }
            }
        }),
    },
    Signal {
        name: "self.certificate_expiry",
        subject: Subject::Own,
        metric: "kldtrace_certificate_expiry_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "When the certificate of the daemon, or the first of those that certify it, expires: seconds since 1970.",
        labels: &["purpose"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "RFC 5280, 4.1.2.5: notAfter",
        numbers: Numbers::Facts(|facts, emit| {
            for certificate in &facts.certificates {
                if let Some(end) = certificate.not_after {
                    emit.float(&[certificate.purpose], end as f64);
                }
            }
        }),
    },
    Signal {
        name: "self.certificate_renewals",
        subject: Subject::Own,
        metric: "kldtrace_certificate_renewals",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Changed files of certificates, keys and authorities that were taken into use.",
        labels: &["purpose"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "exporters/src/tls/follow.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for certificate in &facts.certificates {
                emit.integer(&[certificate.purpose], certificate.renewals);
            }
        }),
    },
    Signal {
        name: "self.certificate_failures",
        subject: Subject::Own,
        metric: "kldtrace_certificate_failures",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Changed files of certificates, keys and authorities that could not be used; the old stay in use.",
        labels: &["purpose"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "exporters/src/tls/follow.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for certificate in &facts.certificates {
                emit.integer(&[certificate.purpose], certificate.failures);
            }
        }),
    },
    Signal {
        name: "self.collector_answers",
        subject: Subject::Own,
        metric: "kldtrace_collector_answers",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Whether a collector answered, before [limits] scrape_deadline and without an error; its series are missing where it did not.",
        labels: &["collector"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/signals/collector.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for collector in &facts.collectors {
                emit.integer(&[collector.name], u64::from(collector.answers));
            }
        }),
    },
    Signal {
        name: "self.collector_left_out",
        subject: Subject::Own,
        metric: "kldtrace_collector_left_out",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Readings that went on without a collector, as it had not answered in time or had failed.",
        labels: &["collector"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/signals/collector.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for collector in &facts.collectors {
                emit.integer(&[collector.name], collector.left_out);
            }
        }),
    },
];
