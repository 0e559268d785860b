//! Output for pipes: aligned plain lines, and JSON Lines.

use std::{
    io::{self, Write},
    time::SystemTime,
};

use jiff::Timestamp;
use kldtrace_exporters::model::Histogram;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    draw::{Stretch, per_second},
    group::{Row, Shown},
    text,
};
use crate::quantile::Summary;

/// Writes the plain header. Lines that hold no figures start with `#`.
pub fn header(out: &mut dyn Write, shown: &[Shown]) -> io::Result<()> {
    writeln!(
        out,
        "{:<24}  {:<width$}  {:>10}  {:>10}  {:>6}  {:>6}  {:>6}  {:>6}  {:>6}  {:>6}  GROUP",
        "# START",
        "SIGNAL",
        "COUNT",
        "RATE/S",
        "MEAN",
        "P50",
        "P90",
        "P99",
        "P99.9",
        "MAX",
        width = signal_width(shown)
    )
}

/// Writes a plain line for each row of `stretch`, which began at `start`, and
/// one with a count of 0 for each signal that did nothing. Columns stay where
/// they are from interval to interval; GROUP, the last, holds `label=value`
/// pairs or `-`.
pub fn plain(
    out: &mut dyn Write,
    shown: &[Shown],
    start: SystemTime,
    stretch: &Stretch,
) -> io::Result<()> {
    for signal in shown {
        let mut rows = stretch.of(signal).peekable();
        if rows.peek().is_none() {
            let nothing = Summary::default();
            plain_line(out, shown, signal, start, &nothing, stretch.seconds, "-")?;
        }
        for row in rows {
            let summary = Summary::of(&row.histogram);
            let group = group(row);
            plain_line(out, shown, signal, start, &summary, stretch.seconds, &group)?;
        }
    }
    out.flush()
}

fn plain_line(
    out: &mut dyn Write,
    shown: &[Shown],
    signal: &Shown,
    start: SystemTime,
    summary: &Summary,
    seconds: f64,
    group: &str,
) -> io::Result<()> {
    let time = |seconds: f64| match summary.count {
        0 => "-".to_owned(),
        _ => text::duration(seconds),
    };
    writeln!(
        out,
        "{}  {:<width$}  {:>10}  {:>10.1}  {:>6}  {:>6}  {:>6}  {:>6}  {:>6}  {:>6}  {group}",
        rfc3339(start),
        signal.signal,
        summary.count,
        per_second(summary.count, seconds),
        time(summary.mean),
        time(summary.p50),
        time(summary.p90),
        time(summary.p99),
        time(summary.p999),
        time(summary.max),
        width = signal_width(shown)
    )
}

/// `time` in UTC with milliseconds; a clock far beyond any reason gives the
/// last time that there is.
pub(super) fn rfc3339(time: SystemTime) -> String {
    format!("{:.3}", Timestamp::try_from(time).unwrap_or(Timestamp::MAX))
}

fn signal_width(shown: &[Shown]) -> usize {
    let widths = shown.iter().map(|signal| signal.signal.len());
    widths.max().unwrap_or(0)
}

fn group(row: &Row) -> String {
    let pairs = row.labels.iter().map(|(name, value)| {
        let value = text::harmless(value);
        // One field for whoever splits at blanks.
        if value.is_empty() || value.contains(char::is_whitespace) {
            format!("{name}=\"{value}\"")
        } else {
            format!("{name}={value}")
        }
    });
    let pairs: Vec<_> = pairs.collect();
    if pairs.is_empty() {
        return "-".to_owned();
    }
    pairs.join(" ")
}

/// One line of `--json`.
#[derive(Serialize)]
struct JsonLine {
    start: String,
    seconds: f64,
    rows: Vec<JsonRow>,
}

/// One group of one signal. Times are in seconds.
#[derive(Serialize)]
struct JsonRow {
    signal: &'static str,
    metric: &'static str,
    labels: Map<String, Value>,
    count: u64,
    sum_seconds: f64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    /// Upper bound and count of each bucket that is not empty.
    buckets: Vec<(f64, u64)>,
    /// Durations over 1024 s, which no bucket holds.
    overflow: u64,
}

/// Writes `stretch`, which began at `start`, as one JSON object on one line.
///
/// Times are in seconds, unrounded. JSON has no infinity: a quantile beyond
/// the last bucket is 1024, and `overflow` counts how many those were.
pub fn json(out: &mut dyn Write, start: SystemTime, stretch: &Stretch) -> io::Result<()> {
    let line = JsonLine {
        start: rfc3339(start),
        seconds: stretch.seconds,
        rows: stretch.rows.iter().map(json_row).collect(),
    };
    serde_json::to_writer(&mut *out, &line)?;
    writeln!(out)?;
    out.flush()
}

fn json_row(row: &Row) -> JsonRow {
    let histogram = &row.histogram;
    let summary = Summary::of(histogram);
    let finite = |seconds: f64| seconds.min(Histogram::upper_bound(Histogram::LAST_INDEX));
    let zero = (histogram.zero > 0).then_some((Histogram::ZERO_THRESHOLD, histogram.zero));
    let buckets = histogram.buckets.iter();
    let buckets = buckets.map(|(index, count)| (Histogram::upper_bound(*index), *count));
    let labels = row.labels.iter();
    JsonRow {
        signal: row.shown.signal,
        metric: row.shown.metric,
        labels: labels
            .map(|(name, value)| (name.clone(), json!(**value)))
            .collect(),
        count: summary.count,
        sum_seconds: histogram.sum_seconds(),
        mean: summary.mean,
        p50: finite(summary.p50),
        p90: finite(summary.p90),
        p99: finite(summary.p99),
        p999: finite(summary.p999),
        max: finite(summary.max),
        buckets: zero.into_iter().chain(buckets).collect(),
        overflow: histogram.overflow,
    }
}
