//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::{
    borrow::Cow,
    io::{self, Write as _},
};

use super::{Take, classic, exemplar, sample_suffix};
use crate::model::{Exemplar, Family, Histogram, Kind, Series, Value};

/// Which of the two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Prometheus 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// Writes the families, and offers what is written after each series.
pub fn write<'a>(
    families: impl Iterator<Item = &'a Family>,
    dialect: Dialect,
    out: &mut Vec<u8>,
    take: &mut Take<'_>,
) -> io::Result<()> {
    let mut labels = String::new();
    for family in families {
        write_head(out, family, dialect);
        for series in &family.series {
            labels.clear();
            write_labels(&mut labels, series);
            write_series(out, family, &labels, &series.value, dialect);
            take(out)?;
        }
    }
    if dialect == Dialect::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    Ok(())
}

fn write_head(out: &mut Vec<u8>, family: &Family, dialect: Dialect) {
    // OpenMetrics describes a counter without its suffix, 0.0.4 with it.
    let suffix = match dialect {
        Dialect::Classic => sample_suffix(family.kind),
        Dialect::OpenMetrics => "",
    };
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let name = &family.name;
    push_all(out, &["# TYPE ", name, suffix, " ", kind, "\n"]);
    if dialect == Dialect::OpenMetrics
        && let Some(unit) = family.unit.as_str()
    {
        push_all(out, &["# UNIT ", name, " ", unit, "\n"]);
    }
    push_all(out, &["# HELP ", name, suffix, " "]);
    let help = escaped(&family.help, dialect == Dialect::OpenMetrics);
    push_all(out, &[&help, "\n"]);
}

/// Writes the labels without braces, so that `le` can follow.
fn write_labels(out: &mut String, series: &Series) {
    for (position, (name, value)) in series.labels.iter().enumerate() {
        let separator = if position == 0 { "" } else { "," };
        for part in [separator, name, "=\"", &escaped(value, true), "\""] {
            out.push_str(part);
        }
    }
}

fn write_series(out: &mut Vec<u8>, family: &Family, labels: &str, value: &Value, dialect: Dialect) {
    let number = match value {
        Value::Histogram(histogram) => {
            return write_histogram(out, &family.name, labels, histogram, dialect);
        }
        Value::Integer(number) => Number::Integer(*number),
        Value::Float(number) => Number::Float(*number),
    };
    write_sample(
        out,
        &family.name,
        sample_suffix(family.kind),
        labels,
        number,
    );
}

fn write_histogram(
    out: &mut Vec<u8>,
    name: &str,
    labels: &str,
    histogram: &Histogram,
    dialect: Dialect,
) {
    // All that is the same in the 32 lines is put together once.
    let separator = if labels.is_empty() { "" } else { "," };
    let prefix = [name, "_bucket{", labels, separator, "le=\""].concat();
    let count = histogram.count();
    let finite = classic::FINITE.iter().map(|bound| bound.le.as_str());
    let counts = classic::cumulative(histogram);
    // 0.0.4 has no place for them.
    let exemplars = match dialect {
        Dialect::Classic => Vec::new(),
        Dialect::OpenMetrics => exemplar::by_bucket(histogram),
    };
    let lines = finite.zip(counts).chain([("+Inf", count)]);
    for (position, (le, count)) in lines.enumerate() {
        push_all(out, &[&prefix, le, "\"} "]);
        push_number(out, Number::Integer(count));
        if let Some(Some(exemplar)) = exemplars.get(position) {
            write_exemplar(out, exemplar);
        }
        out.push(b'\n');
    }
    write_sample(
        out,
        name,
        "_sum",
        labels,
        Number::Float(histogram.sum_seconds()),
    );
    write_sample(out, name, "_count", labels, Number::Integer(count));
}

fn write_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    push_all(out, &[" # {", exemplar::LABEL, "=\""]);
    push_number(out, Number::Integer(exemplar.event));
    out.extend_from_slice(b"\"} ");
    push_number(out, Number::Float(exemplar.seconds));
    // To the millisecond: a number of nanoseconds has more digits than others
    // can read.
    let milliseconds = exemplar.time_ns / 1_000_000;
    let (seconds, rest) = (milliseconds / 1000, milliseconds % 1000);
    let _ = write!(out, " {seconds}.{rest:03}");
}

fn write_sample(out: &mut Vec<u8>, name: &str, suffix: &str, labels: &str, number: Number) {
    push_all(out, &[name, suffix]);
    if !labels.is_empty() {
        push_all(out, &["{", labels, "}"]);
    }
    out.push(b' ');
    push_number(out, number);
    out.push(b'\n');
}

#[derive(Clone, Copy)]
enum Number {
    Integer(u64),
    Float(f64),
}

fn push_number(out: &mut Vec<u8>, number: Number) {
    match number {
        Number::Integer(number) => {
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        Number::Float(number) if number.is_infinite() => {
            out.extend_from_slice(if number > 0.0 { b"+Inf" } else { b"-Inf" });
        }
        Number::Float(number) => {
            // The shortest digits that read back as the same number; `NaN` is
            // the formats' own word. Writing to memory does not fail.
            let _ = write!(out, "{number:?}");
        }
    }
}

fn push_all(out: &mut Vec<u8>, parts: &[&str]) {
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Help texts of 0.0.4 leave quotes as they are; all else has them escaped.
fn escaped(text: &str, quotes: bool) -> Cow<'_, str> {
    let special = |c| matches!(c, '\\' | '\n') || quotes && c == '"';
    if !text.contains(special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            c if special(c) => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}
