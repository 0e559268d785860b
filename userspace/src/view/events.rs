//! Events as lines: a table for people, JSON for programs.

use std::{
    io::{self, Write},
    time::{Duration, SystemTime},
};

use kldtrace_exporters::model::{Event, Field};
use serde_json::{Map, Value, json};

use super::{
    draw::style,
    lines::rfc3339,
    screen::Line,
    text::{harmless, width},
};

/// Columns of an event's subject and kind, and of its unit; a longer one
/// pushes the rest of its line.
const KIND: usize = 22;
const UNIT: usize = 20;

/// The heading of the table.
pub fn header() -> Line {
    let heading = format!(
        "{:<24}  {:<KIND$}  {:<UNIT$}  MESSAGE",
        "# TIME", "EVENT", "UNIT"
    );
    Line::default().with(style::DIM, heading)
}

/// An event as a row of the table.
pub fn row(event: &Event) -> Line {
    let padded = |text: String, columns: usize| {
        let blanks = columns.saturating_sub(width(&text));
        text + &" ".repeat(blanks) + "  "
    };
    let kind = harmless(&format!("{}.{}", event.subject, event.kind));
    let unit = event.labels.iter().find(|(name, _)| name == "unit");
    let unit = unit.map_or_else(|| "-".to_owned(), |(_, unit)| harmless(unit));
    Line::default()
        .with(style::DIM, padded(rfc3339(time(event)), 24))
        .with(style::HEADING, padded(kind, KIND))
        .with(style::PLAIN, padded(unit, UNIT))
        .with(style::PLAIN, harmless(&event.message))
}

/// An event as one JSON object on one line.
///
/// # Errors
/// If `out` cannot be written.
pub fn json(out: &mut dyn Write, event: &Event) -> io::Result<()> {
    let labels = event.labels.iter();
    let labels: Map<String, Value> = labels
        .map(|(name, value)| (name.to_string(), json!(**value)))
        .collect();
    let fields = event.fields.iter().map(|(name, value)| {
        let value = match value {
            Field::Integer(number) => json!(number),
            Field::Float(number) => json!(number),
            Field::Text(text) => json!(**text),
        };
        (name.to_string(), value)
    });
    let object = json!({
        "id": event.id,
        "time": rfc3339(time(event)),
        "subject": event.subject,
        "kind": event.kind,
        "labels": labels,
        "fields": fields.collect::<Map<_, _>>(),
        "message": event.message,
    });
    writeln!(out, "{object}")
}

/// When it happened.
pub fn time(event: &Event) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(event.time_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            id: 7,
            time_ns: 1_800_000_000_250_000_000,
            subject: "zfs".into(),
            kind: "slow_operation".into(),
            labels: vec![
                ("dataset".into(), "rpool/pg".into()),
                ("unit".into(), "pg\x1b[2J.service".into()),
            ],
            fields: vec![
                ("duration_seconds".into(), Field::Float(0.041)),
                ("bytes".into(), Field::Integer(8192)),
                ("command".into(), Field::Text("postgres".into())),
            ],
            message: "fsync on rpool/pg took 41.0ms\n".to_owned(),
        }
    }

    #[test]
    fn a_row_is_one_harmless_line() {
        assert_eq!(
            row(&event()).render(false),
            r"2027-01-15T08:00:00.250Z  zfs.slow_operation      pg\u{1b}[2J.service   fsync on rpool/pg took 41.0ms\n"
        );
        assert_eq!(
            header().render(false),
            "# TIME                    EVENT                   UNIT                  MESSAGE"
        );
        let far = Event {
            time_ns: u64::MAX,
            labels: Vec::new(),
            ..event()
        };
        assert!(row(&far).render(false).contains("  -   "));
    }

    #[test]
    fn json_has_objects_for_labels_and_fields() {
        let mut out = Vec::new();
        json(&mut out, &event()).unwrap();
        let object: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(object["labels"]["dataset"], "rpool/pg");
        assert_eq!(object["fields"]["bytes"], 8192);
        assert_eq!(object["fields"]["duration_seconds"], 0.041);
        assert_eq!(object["time"], "2027-01-15T08:00:00.250Z");
        assert_eq!(String::from_utf8(out).unwrap().lines().count(), 1);
    }
}
