//! Prometheus' protobuf format: `io.prometheus.client.MetricFamily` messages.
//!
//! The field numbers are those of prompb/io/prometheus/client/metrics.proto in
//! the Prometheus repository. Messages are written as they come, without the tree
//! that prost would need, so that prost can be an independent judge in the tests.

use std::io;

use super::{Take, classic, exemplar, native, sample_suffix};
use crate::{
    model::{Exemplar, Family, Histogram, Kind, Series, Value},
    wire::{
        Cursor, delimited, double, integer, message, sized_message, string, varint_length, zigzag,
    },
};

/// Writes the families, each after its length, and offers what is written after each.
pub fn write<'a>(
    families: impl Iterator<Item = &'a Family>,
    out: &mut Vec<u8>,
    take: &mut Take<'_>,
) -> io::Result<()> {
    for family in families {
        delimited(out, 3, |out| write_family(out, family));
        take(out)?;
    }
    Ok(())
}

/// Writes `MetricFamily`.
fn write_family(out: &mut Vec<u8>, family: &Family) {
    // Unlike in OpenMetrics, the family of a counter is named as its series.
    message(out, 1, |out| {
        out.extend_from_slice(family.name.as_bytes());
        out.extend_from_slice(sample_suffix(family.kind).as_bytes());
    });
    string(out, 2, &family.help);
    // `MetricType`
    integer(
        out,
        3,
        match family.kind {
            Kind::Counter => 0,
            Kind::Gauge => 1,
            Kind::Histogram => 4,
        },
    );
    for series in &family.series {
        sized_message(out, 4, 2, |out| {
            write_metric(out, family.kind, series);
        });
    }
    if let Some(unit) = family.unit.as_str() {
        string(out, 5, unit);
    }
}

/// Writes `Metric`.
fn write_metric(out: &mut Vec<u8>, kind: Kind, series: &Series) {
    for (name, value) in &series.labels {
        message(out, 1, |out| {
            string(out, 1, name);
            string(out, 2, value);
        });
    }
    let number = match &series.value {
        Value::Histogram(histogram) => {
            return sized_message(out, 7, 2, |out| write_histogram(out, histogram));
        }
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
    };
    let field = if kind == Kind::Counter { 3 } else { 2 };
    message(out, field, |out| double(out, 1, number));
}

/// Writes `Histogram`.
///
/// Prometheus takes the native half where native histograms are turned on and
/// the classic half elsewhere, so both are here.
fn write_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    integer(out, 1, histogram.count());
    double(out, 2, histogram.sum_seconds());
    write_buckets(out, histogram);
    integer(out, 5, zigzag(i64::from(Histogram::SCHEMA)));
    double(out, 6, Histogram::ZERO_THRESHOLD);
    integer(out, 7, histogram.zero);

    for span in native::spans(histogram) {
        message(out, 12, |out| {
            integer(out, 1, zigzag(i64::from(span.offset)));
            integer(out, 2, u64::from(span.length));
        });
    }
    message(out, 13, |out| {
        let most = native::buckets(histogram) * Cursor::VARINT;
        Cursor::append(out, most, |out| {
            for delta in native::deltas(histogram) {
                out.varint(zigzag(delta));
            }
        });
    });
    for exemplar in &histogram.exemplars {
        message(out, 16, |out| write_exemplar(out, exemplar));
    }
}

/// Writes each `Bucket`. There are more of them than of all else, so they are put
/// together by hand where there is no exemplar.
fn write_buckets(out: &mut Vec<u8>, histogram: &Histogram) {
    // The bucket +Inf may be left out: it is the count.
    let buckets = classic::FINITE.iter().zip(classic::cumulative(histogram));
    if histogram.exemplars.is_empty() {
        // Two tags, a length and a number beside the varint.
        let most = classic::FINITE.len() * (3 + Cursor::VARINT + 9);
        Cursor::append(out, most, |out| {
            for (bound, count) in buckets {
                let length = varint_length(count) as u8 + 10;
                // 3: a message of `length`, in which is 1: a varint, 2: a double.
                out.bytes([0x1a, length, 0x08]);
                out.varint(count);
                out.bytes([0x11]);
                out.bytes(bound.seconds.to_le_bytes());
            }
        });
        return;
    }
    let exemplars = exemplar::by_bucket(histogram);
    for ((bound, count), exemplar) in buckets.zip(exemplars) {
        message(out, 3, |out| {
            integer(out, 1, count);
            double(out, 2, bound.seconds);
            // Where Prometheus before 2.50 looks for them.
            if let Some(exemplar) = exemplar {
                message(out, 3, |out| write_exemplar(out, exemplar));
            }
        });
    }
}

/// Writes `Exemplar`.
fn write_exemplar(out: &mut Vec<u8>, exemplar: &Exemplar) {
    message(out, 1, |out| {
        string(out, 1, exemplar::LABEL);
        string(out, 2, itoa::Buffer::new().format(exemplar.event));
    });
    double(out, 2, exemplar.seconds);
    // `google.protobuf.Timestamp`
    message(out, 3, |out| {
        integer(out, 1, exemplar.time_ns / 1_000_000_000);
        integer(out, 2, exemplar.time_ns % 1_000_000_000);
    });
}
