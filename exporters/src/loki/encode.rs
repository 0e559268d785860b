//! The bytes of a push.

use std::{borrow::Cow, fmt::Write as _, io::Write as _};

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;

use super::{
    Format,
    streams::{Placed, Stream},
};
use crate::{
    record::{Attribute, Record},
    wire,
};

/// Longest line that Loki takes, in bytes (`max_line_size`).
const LINE: usize = 262_144;
/// Most pairs of structured metadata (`max_structured_metadata_entries_count`).
const PAIRS: usize = 128;
/// Most bytes of all of them (`max_structured_metadata_size`).
const BYTES: usize = 64 << 10;
/// Room for what says that something was left out.
const RESERVE: usize = 64;

/// Writes pushes, with memory that is used again.
pub(super) struct Encoder {
    plain: Vec<u8>,
    text: String,
    snappy: snap::raw::Encoder,
}

impl Default for Encoder {
    fn default() -> Self {
        Self {
            plain: Vec::new(),
            text: String::new(),
            snappy: snap::raw::Encoder::new(),
        }
    }
}

impl Encoder {
    /// The compressed body of a push. Errors are words: only what is larger
    /// than 4 GiB cannot be compressed.
    pub(super) fn encode(
        &mut self,
        format: Format,
        streams: &[Stream<'_>],
        records: &[Record<'_>],
    ) -> Result<Vec<u8>, String> {
        self.plain.clear();
        match format {
            Format::Protobuf => {
                for stream in streams {
                    protobuf(&mut self.plain, &mut self.text, stream, records);
                }
                self.snappy
                    .compress_vec(&self.plain)
                    .map_err(|e| e.to_string())
            }
            Format::Json => {
                json(&mut self.plain, &mut self.text, streams, records);
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                gzip.write_all(&self.plain).map_err(|e| e.to_string())?;
                gzip.finish().map_err(|e| e.to_string())
            }
        }
    }
}

fn protobuf(out: &mut Vec<u8>, text: &mut String, stream: &Stream<'_>, records: &[Record<'_>]) {
    wire::message(out, 1, |out| {
        labels(text, stream);
        wire::string(out, 1, text);
        for entry in &stream.entries {
            let record = &records[entry.record];
            wire::message(out, 2, |out| {
                wire::message(out, 1, |out| {
                    wire::integer(out, 1, entry.time_ns / 1_000_000_000);
                    wire::integer(out, 2, entry.time_ns % 1_000_000_000);
                });
                wire::string(out, 2, line(record));
                metadata(text, record, entry, &mut |name, value| {
                    wire::message(out, 3, |out| {
                        wire::string(out, 1, name);
                        wire::string(out, 2, value);
                    });
                });
            });
        }
    });
}

/// `{kind="…", node="…"}`, as Prometheus writes them.
fn labels(out: &mut String, stream: &Stream<'_>) {
    out.clear();
    out.push('{');
    for (index, (name, value)) in stream.labels.iter().enumerate() {
        if index > 0 {
            out.push_str(", ");
        }
        out.extend([name, "=\""]);
        for c in value.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    out.push('}');
}

fn json(out: &mut Vec<u8>, text: &mut String, streams: &[Stream<'_>], records: &[Record<'_>]) {
    out.extend(b"{\"streams\":[");
    for (index, stream) in streams.iter().enumerate() {
        out.extend(if index > 0 {
            &b",{\"stream\":{"[..]
        } else {
            b"{\"stream\":{"
        });
        for (index, (name, value)) in stream.labels.iter().enumerate() {
            pair(out, index, name, value);
        }
        out.extend(b"},\"values\":[");
        for (index, entry) in stream.entries.iter().enumerate() {
            let record = &records[entry.record];
            out.extend(if index > 0 { &b",[\""[..] } else { b"[\"" });
            out.extend(itoa::Buffer::new().format(entry.time_ns).as_bytes());
            out.extend(b"\",");
            quoted(out, line(record));
            out.extend(b",{");
            let mut index = 0;
            metadata(text, record, entry, &mut |name, value| {
                pair(out, index, name, value);
                index += 1;
            });
            out.extend(b"}]");
        }
        out.extend(b"]}");
    }
    out.extend(b"]}");
}

fn pair(out: &mut Vec<u8>, index: usize, name: &str, value: &str) {
    if index > 0 {
        out.push(b',');
    }
    quoted(out, name);
    out.push(b':');
    quoted(out, value);
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("memory is all that writing takes");
}

/// The line, as far as Loki takes it.
fn line<'a>(record: &Record<'a>) -> &'a str {
    &record.body[..record.body.floor_char_boundary(LINE)]
}

/// Calls `each` with the names and values of an entry's structured metadata.
fn metadata(
    text: &mut String,
    record: &Record<'_>,
    entry: &Placed,
    each: &mut impl FnMut(&str, &str),
) {
    let mut used: Vec<Cow<'_, str>> = Vec::with_capacity(record.attributes.len() + 3);
    let level = record.severity.as_str();
    each("level", level);
    used.push("level".into());
    if entry.time_ns != record.time_ns {
        text.clear();
        let _ = match Timestamp::from_nanosecond(record.time_ns.into()) {
            Ok(time) => write!(text, "{time}"),
            Err(_) => write!(text, "{} ns", record.time_ns),
        };
        each("time", text);
        used.push("time".into());
    }
    let mut number = itoa::Buffer::new();
    let cut = record.body.len() - line(record).len();
    if cut > 0 {
        each("truncated_bytes", number.format(cut));
        used.push("truncated_bytes".into());
    }
    // `level` and what may be above, with room to spare.
    let mut bytes = 2 * RESERVE;
    let mut left_out = 0_u64;
    for (name, value) in &record.attributes {
        let value = match value {
            Attribute::Text(value) => *value,
            Attribute::Integer(value) => number.format(*value),
            Attribute::Float(value) => {
                text.clear();
                let _ = write!(text, "{value}");
                &*text
            }
        };
        let name = free(valid(name), &used);
        let more = name.len() + value.len();
        if used.len() + 1 >= PAIRS || bytes + more + RESERVE > BYTES {
            left_out += 1;
            continue;
        }
        bytes += more;
        each(&name, value);
        used.push(name);
    }
    if left_out > 0 {
        let name = free("attributes_left_out".into(), &used);
        each(&name, number.format(left_out));
    }
}

/// The name in letters, digits and underscores.
fn valid(name: &str) -> Cow<'_, str> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let digit = name.starts_with(|c: char| c.is_ascii_digit());
    if !name.is_empty() && !digit && name.bytes().all(good) {
        return name.into();
    }
    let mut made = String::with_capacity(name.len() + 1);
    if digit || name.is_empty() {
        made.push('_');
    }
    made.extend(name.chars().map(|c| {
        if c.is_ascii() && good(c as u8) {
            c
        } else {
            '_'
        }
    }));
    made.into()
}

/// The name, with a number at its end where it is in use: Loki keeps one of
/// equal names.
fn free<'a>(name: Cow<'a, str>, used: &[Cow<'_, str>]) -> Cow<'a, str> {
    if !used.contains(&name) {
        return name;
    }
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut unused = numbered.filter(|name| !used.iter().any(|used| used == name));
    unused.next().map_or(name, Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_valid_and_stay_apart() {
        for (name, made) in [
            ("a", "a"),
            ("_SYSTEMD_UNIT", "_SYSTEMD_UNIT"),
            ("a-b.c", "a_b_c"),
            ("1st", "_1st"),
            ("", "_"),
            ("größe", "gr__e"),
        ] {
            assert_eq!(valid(name), made);
        }
        let used = ["a".into(), "a_2".into()];
        assert_eq!(free("a".into(), &used), "a_3");
        assert_eq!(free("b".into(), &used), "b");
    }
}
