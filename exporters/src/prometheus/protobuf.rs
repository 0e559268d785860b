//! Prometheus' protobuf format: `io.prometheus.client.MetricFamily` messages.
//!
//! The field numbers are those of prompb/io/prometheus/client/metrics.proto in
//! the Prometheus repository. Messages are written as they come, without the tree
//! that prost would need, so that prost can be an independent judge in the tests.

use super::{classic, exemplar, native, sample_suffix};
use crate::{
    model::{Exemplar, Family, Histogram, Kind, Series, Value},
    wire::{delimited, double, integer, message, string, varint, zigzag},
};

/// Room for one histogram's spans and deltas, used again for the next.
#[derive(Default)]
struct Scratch {
    spans: Vec<native::Span>,
    deltas: Vec<i64>,
}

/// Writes the families, each after its length.
pub fn encode<'a>(families: impl Iterator<Item = &'a Family>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut scratch = Scratch::default();
    for family in families {
        delimited(&mut out, |out| write_family(out, family, &mut scratch));
    }
    out
}

/// Writes `MetricFamily`.
fn write_family(out: &mut Vec<u8>, family: &Family, scratch: &mut Scratch) {
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
        message(out, 4, |out| {
            write_metric(out, family.kind, series, scratch);
        });
    }
    if let Some(unit) = family.unit.as_str() {
        string(out, 5, unit);
    }
}

/// Writes `Metric`.
fn write_metric(out: &mut Vec<u8>, kind: Kind, series: &Series, scratch: &mut Scratch) {
    for (name, value) in &series.labels {
        message(out, 1, |out| {
            string(out, 1, name);
            string(out, 2, value);
        });
    }
    let number = match &series.value {
        Value::Histogram(histogram) => {
            return message(out, 7, |out| write_histogram(out, histogram, scratch));
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
fn write_histogram(out: &mut Vec<u8>, histogram: &Histogram, scratch: &mut Scratch) {
    integer(out, 1, histogram.count());
    double(out, 2, histogram.sum_seconds());
    // The bucket +Inf may be left out: it is the count.
    let exemplars = exemplar::by_bucket(histogram);
    let buckets = classic::FINITE.iter().zip(classic::cumulative(histogram));
    for (position, (bound, count)) in buckets.enumerate() {
        message(out, 3, |out| {
            integer(out, 1, count);
            double(out, 2, bound.seconds);
            // Where Prometheus before 2.50 looks for them.
            if let Some(Some(exemplar)) = exemplars.get(position) {
                message(out, 3, |out| write_exemplar(out, exemplar));
            }
        });
    }
    integer(out, 5, zigzag(i64::from(Histogram::SCHEMA)));
    double(out, 6, Histogram::ZERO_THRESHOLD);
    integer(out, 7, histogram.zero);

    native::spans_and_deltas(histogram, &mut scratch.spans, &mut scratch.deltas);
    for span in &scratch.spans {
        message(out, 12, |out| {
            integer(out, 1, zigzag(i64::from(span.offset)));
            integer(out, 2, u64::from(span.length));
        });
    }
    message(out, 13, |out| {
        for delta in &scratch.deltas {
            varint(out, zigzag(*delta));
        }
    });
    for exemplar in &histogram.exemplars {
        message(out, 16, |out| write_exemplar(out, exemplar));
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
