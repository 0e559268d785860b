//! What is pushed: one log line or event, as it lies in the spool and as every
//! destination gets it.

use serde::{Deserialize, Serialize};

use crate::model::{Event, Field};

/// How bad it is: the ranges of OpenTelemetry's severity numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Severity {
    /// For those who look for a fault.
    Debug,
    /// As it should be.
    #[default]
    Info,
    /// Normal, but worth a look: syslog's notice.
    Notice,
    /// May become an error.
    Warn,
    /// Something failed.
    Error,
    /// Syslog's critical, alert and emergency.
    Fatal,
}

impl Severity {
    /// As Loki's and Grafana's `level` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "critical",
        }
    }

    /// OpenTelemetry's SeverityNumber.
    pub fn number(self) -> u8 {
        match self {
            Self::Debug => 5,
            Self::Info => 9,
            Self::Notice => 10,
            Self::Warn => 13,
            Self::Error => 17,
            Self::Fatal => 21,
        }
    }
}

/// A log line or event. Borrows from the spool's batch or from the event.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record<'a> {
    /// When it happened, in nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, from a closed set: `journal`, `zfs.slow_operation`.
    pub kind: &'a str,
    /// The plane that it happened on; "" for none.
    pub plane: &'a str,
    /// The systemd unit, pod or VM; "" for none.
    pub unit: &'a str,
    /// The line for people.
    pub body: &'a str,
    /// Everything else that is known. Names are as the source has them.
    #[serde(borrow)]
    pub attributes: Vec<(&'a str, Attribute<'a>)>,
    /// Something that took time: it is a span, too.
    #[serde(borrow)]
    pub span: Option<Span<'a>>,
}

/// A value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Attribute<'a> {
    /// Text.
    Text(&'a str),
    /// A whole number.
    Integer(u64),
    /// Any other number.
    Float(f64),
}

/// An operation that ended at its record's time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Span<'a> {
    /// Name of a few: `zfs fsync`.
    pub name: String,
    /// What it took, in nanoseconds.
    pub duration_ns: u64,
    /// Where the time went, in nanoseconds: parts that are not zero and do not
    /// overlap. Their order in time is not known.
    #[serde(borrow)]
    pub stages: Vec<(&'a str, u64)>,
}

/// Labels that are a place of their own in a [`Record`].
const PLANE: &str = "plane";
const UNIT: &str = "unit";

/// A record that stands alone, to be kept in the spool's bytes.
///
/// # Errors
/// When they are no record: damaged, or written by another version.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, postcard::Error> {
    postcard::from_bytes(bytes)
}

impl<'a> Record<'a> {
    /// Appends the record's bytes, which [`decode`] reads.
    ///
    /// # Panics
    /// Never: memory is all that writing takes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        postcard::to_io(self, out).expect("a record has a form for each of its parts");
    }

    /// An event as a record. `kind` is its subject and kind with a dot between;
    /// `span`, if the event is an operation that took time.
    pub fn from_event(event: &'a Event, kind: &'a str, span: Option<Span<'a>>) -> Self {
        let label = |wanted: &str| {
            let found = event.labels.iter().find(|(name, _)| name == wanted);
            found.map_or("", |(_, value)| &**value)
        };
        let labels = event
            .labels
            .iter()
            .filter(|(name, _)| name != PLANE && name != UNIT)
            .map(|(name, value)| (&**name, Attribute::Text(value)));
        let fields = event.fields.iter().map(|(name, value)| {
            let value = match value {
                Field::Integer(value) => Attribute::Integer(*value),
                Field::Float(value) => Attribute::Float(*value),
                Field::Text(value) => Attribute::Text(value),
            };
            (&**name, value)
        });
        let id = ("event_id", Attribute::Integer(event.id));
        Self {
            time_ns: event.time_ns,
            severity: Severity::Info,
            kind,
            plane: label(PLANE),
            unit: label(UNIT),
            body: &event.message,
            attributes: std::iter::once(id).chain(labels).chain(fields).collect(),
            span,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_event_loses_nothing_on_its_way() {
        let event = Event {
            id: 7,
            time_ns: 99,
            subject: "zfs".into(),
            kind: "slow_operation".into(),
            labels: vec![
                ("dataset".into(), "rpool/pg".into()),
                ("unit".into(), "pg.service".into()),
            ],
            fields: vec![
                ("bytes".into(), Field::Integer(u64::MAX)),
                ("duration_seconds".into(), Field::Float(0.041)),
                ("command".into(), Field::Text("postgres".into())),
            ],
            message: "fsync took 41 ms".to_owned(),
        };
        let span = Span {
            name: "zfs fsync".to_owned(),
            duration_ns: 41_000_000,
            stages: vec![("zil_commit", 38_000_000)],
        };
        let record = Record::from_event(&event, "zfs.slow_operation", Some(span));
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let back = decode(&bytes).unwrap();
        assert_eq!(back, record);
        assert_eq!((back.unit, back.plane), ("pg.service", ""));
        assert_eq!(
            back.attributes,
            [
                ("event_id", Attribute::Integer(7)),
                ("dataset", Attribute::Text("rpool/pg")),
                ("bytes", Attribute::Integer(u64::MAX)),
                ("duration_seconds", Attribute::Float(0.041)),
                ("command", Attribute::Text("postgres")),
            ]
        );
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_there_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
