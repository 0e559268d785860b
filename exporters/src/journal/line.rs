//! An entry of the journal as a record.

use std::borrow::Cow;

use super::{
    export::Entry,
    fields::{FIELDS, Role, TEXT},
    filter::About,
    rate::LeftOut,
    redact::Redactor,
    unit::{KERNEL, label},
};
use crate::record::{Attribute, Record, Severity};

/// The kinds of records that come of the journal: a line, and the word that
/// lines were left out.
pub const LINE: &str = "journal";
/// See [`LINE`].
pub const LEFT_OUT: &str = "journal.left_out";

/// What syslog calls informational: that of lines without a priority.
const INFORMATIONAL: u8 = 6;

/// A line of the journal.
#[derive(Debug)]
pub struct Line<'a> {
    /// When it was written, in nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    priority: u8,
    unit: Cow<'a, str>,
    systemd_unit: Cow<'a, str>,
    body: Cow<'a, str>,
    /// Bytes that are missing at the end of the body.
    over: u64,
    attributes: Vec<(&'static str, Value<'a>)>,
}

#[derive(Debug)]
enum Value<'a> {
    Text(Cow<'a, str>),
    Integer(u64),
}

impl<'a> Line<'a> {
    /// `None`: the entry has no time, and so is none of journald's. `host`:
    /// our own name, which is not repeated in each line.
    pub fn new(entry: &'a Entry, host: &str) -> Option<Self> {
        let text = |name: &str| entry.get(name).map(String::from_utf8_lossy);
        let time_us = integer(entry.get("__REALTIME_TIMESTAMP")?)?;
        let priority = entry.get("PRIORITY").and_then(integer).filter(|p| *p <= 7);
        let priority = priority.map_or(INFORMATIONAL, |priority| priority as u8);
        let systemd_unit = if entry.get("_TRANSPORT") == Some(b"kernel") {
            Cow::Borrowed(KERNEL)
        } else {
            let unit = text("_SYSTEMD_USER_UNIT").or_else(|| text("_SYSTEMD_UNIT"));
            unit.unwrap_or_default()
        };
        let unit = match label(&systemd_unit) {
            // Of the same text, the same part.
            Cow::Borrowed(_) => systemd_unit.clone(),
            Cow::Owned(unit) => Cow::Owned(unit),
        };
        let mut attributes = Vec::new();
        if let Some(other) = text("_HOSTNAME").filter(|name| name != host) {
            attributes.push(("_HOSTNAME", Value::Text(other)));
        }
        if unit != systemd_unit {
            attributes.push(("_SYSTEMD_UNIT", Value::Text(systemd_unit.clone())));
        }
        // Three priorities have the one severity.
        if priority <= 2 {
            attributes.push(("PRIORITY", Value::Integer(priority.into())));
        }
        for (index, field) in FIELDS.iter().enumerate() {
            let Some(bytes) = entry.at(index) else {
                continue;
            };
            let value = match field.role {
                Role::Own => continue,
                Role::Text => Value::Text(String::from_utf8_lossy(bytes)),
                Role::Integer => match integer(bytes) {
                    Some(number) => Value::Integer(number),
                    None => Value::Text(String::from_utf8_lossy(bytes)),
                },
            };
            attributes.push((field.name, value));
        }
        Some(Self {
            time_ns: time_us.checked_mul(1000)?,
            priority,
            unit,
            systemd_unit,
            body: text("MESSAGE").unwrap_or_default(),
            over: entry.message_over,
            attributes,
        })
    }

    /// What filters ask for.
    pub fn about(&self) -> About<'_> {
        let identifier = self
            .attributes
            .iter()
            .find_map(|(name, value)| match value {
                Value::Text(text) if *name == "SYSLOG_IDENTIFIER" => Some(&**text),
                _ => None,
            });
        About {
            unit: &self.unit,
            systemd_unit: &self.systemd_unit,
            identifier: identifier.unwrap_or_default(),
            priority: self.priority,
        }
    }

    /// Redacts all that is text, and says whether there was anything.
    pub fn redact(&mut self, redactor: &Redactor) -> bool {
        let mut any = redactor.apply(&mut self.body);
        for (_, value) in &mut self.attributes {
            if let Value::Text(text) = value {
                any |= redactor.apply(text);
            }
        }
        any
    }

    /// Cuts what is longer than a record's parts may be, `body` bytes for the
    /// line itself, and says whether there was anything.
    pub fn cut(&mut self, body: usize) -> bool {
        let before = self.body.len();
        let mut any = cut(&mut self.body, body);
        self.over += (before - self.body.len()) as u64;
        any |= cut(&mut self.unit, TEXT);
        for (_, value) in &mut self.attributes {
            if let Value::Text(text) = value {
                any |= cut(text, TEXT);
            }
        }
        any
    }

    /// As it is pushed.
    pub fn record(&self) -> Record<'_> {
        let attributes = self.attributes.iter().map(|(name, value)| {
            let value = match value {
                Value::Text(text) => Attribute::Text(text),
                Value::Integer(number) => Attribute::Integer(*number),
            };
            (*name, value)
        });
        let over = (self.over > 0).then_some(("truncated_bytes", Attribute::Integer(self.over)));
        Record {
            time_ns: self.time_ns,
            severity: severity(self.priority),
            kind: LINE,
            unit: &self.unit,
            body: &self.body,
            attributes: over.into_iter().chain(attributes).collect(),
            ..Record::default()
        }
    }
}

/// The record that says that lines were left out. `body` is room for its text.
pub fn left_out<'a>(what: &'a LeftOut, body: &'a mut String) -> Record<'a> {
    let LeftOut { unit, lines, .. } = what;
    *body = format!("{lines} lines left out: {unit} writes more than the rate limit lets through");
    Record {
        time_ns: what.time_ns,
        severity: Severity::Warn,
        kind: LEFT_OUT,
        unit,
        body,
        attributes: vec![("lines", Attribute::Integer(*lines))],
        ..Record::default()
    }
}

fn severity(priority: u8) -> Severity {
    match priority {
        0..=2 => Severity::Fatal,
        3 => Severity::Error,
        4 => Severity::Warn,
        5 => Severity::Notice,
        6 => Severity::Info,
        _ => Severity::Debug,
    }
}

fn integer(bytes: &[u8]) -> Option<u64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

fn cut(text: &mut Cow<'_, str>, room: usize) -> bool {
    if text.len() <= room {
        return false;
    }
    let end = text.floor_char_boundary(room);
    match text {
        Cow::Borrowed(whole) => *text = Cow::Borrowed(&whole[..end]),
        Cow::Owned(whole) => whole.truncate(end),
    }
    true
}

#[cfg(test)]
mod tests;
