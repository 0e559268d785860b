//! Metric families as OTLP's metrics.
//!
//! # Names
//! OpenTelemetry's names have no unit in them: `kldtrace_zfs_op_latency` with
//! the unit `s`. A receiver that makes Prometheus' names of them by the
//! specification adds unit and `_total`, and arrives at those of `/metrics`.
//!
//! # Histograms
//! Exponential histograms of scale 3 have exactly the kernel's buckets, each
//! index one less: OTLP's bucket `i` is (2^(i/8), 2^((i+1)/8)]. Durations over
//! 1024 s are counted in the bucket after the last, up to 1117 s: how long they
//! were is not known, and count and sum stay exact.
//!
//! An exemplar names the span of the event that tells more.

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    metrics::v1::{
        AggregationTemporality, Exemplar, ExponentialHistogram, ExponentialHistogramDataPoint,
        Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum, exemplar,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    },
};
use prost::Message as _;

use super::{
    ids::Ids,
    resource::{Resource, SCHEMA_URL},
    value::{integer, text},
};
use crate::model::{self, Family, Histogram, Kind, Series, Unit, Value};

/// Bytes of a request that fits every receiver: gRPC's take 4 MiB.
pub const MAX_BYTES: usize = 1 << 20;
/// OTLP's name of the resolution.
const SCALE: i32 = Histogram::SCHEMA;
/// Most that one point's tag and length, and those around it, take.
const FRAME: usize = 24;

/// When it was counted, in nanoseconds since 1970 (UTC).
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// When all counters were 0: the start of what counts them.
    pub start_ns: u64,
    /// When they were read.
    pub now_ns: u64,
}

/// ExportMetricsServiceRequest messages with all of `families`, each of at most
/// `max_bytes` ([`MAX_BYTES`]) but for a single series that is larger. A series
/// whose value does not fit its family's kind is left out.
pub fn requests(
    families: &[Family],
    resource: &Resource,
    times: Times,
    max_bytes: usize,
) -> Vec<Vec<u8>> {
    let mut requests = Requests::new(resource, max_bytes);
    for family in families {
        requests.family(family, times);
    }
    requests.finish()
}

/// Requests in the making.
struct Requests<'a> {
    resource: &'a Resource,
    /// A request without metrics.
    empty: ExportMetricsServiceRequest,
    max_bytes: usize,
    metrics: Vec<Metric>,
    /// At most so many bytes are `metrics` by now.
    bytes: usize,
    done: Vec<Vec<u8>>,
}

impl<'a> Requests<'a> {
    fn new(resource: &'a Resource, max_bytes: usize) -> Self {
        let empty = ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics {
                resource: Some(resource.message()),
                scope_metrics: vec![ScopeMetrics {
                    scope: Some(resource.scope()),
                    metrics: Vec::new(),
                    schema_url: SCHEMA_URL.to_owned(),
                }],
                schema_url: SCHEMA_URL.to_owned(),
            }],
        };
        Self {
            resource,
            max_bytes: max_bytes.saturating_sub(empty.encoded_len() + FRAME),
            empty,
            metrics: Vec::new(),
            bytes: 0,
            done: Vec::new(),
        }
    }

    fn family(&mut self, family: &Family, times: Times) {
        let head = head(family);
        let head_bytes = head.encoded_len() + FRAME;
        // Whether the last metric is this family.
        let mut begun = false;
        for series in &family.series {
            let Some(point) = Point::new(family.kind, series, self.resource, times) else {
                continue;
            };
            let point_bytes = point.encoded_len() + FRAME;
            let more = point_bytes + if begun { 0 } else { head_bytes };
            if self.bytes + more > self.max_bytes && !self.metrics.is_empty() {
                self.flush();
                begun = false;
            }
            if !begun {
                self.metrics.push(head.clone());
                self.bytes += head_bytes;
                begun = true;
            }
            self.bytes += point_bytes;
            if let Some(metric) = self.metrics.last_mut() {
                point.add_to(metric);
            }
        }
    }

    fn flush(&mut self) {
        let mut request = self.empty.clone();
        request.resource_metrics[0].scope_metrics[0].metrics = std::mem::take(&mut self.metrics);
        self.bytes = 0;
        self.done.push(request.encode_to_vec());
    }

    fn finish(mut self) -> Vec<Vec<u8>> {
        if !self.metrics.is_empty() {
            self.flush();
        }
        self.done
    }
}

/// A family without points.
fn head(family: &Family) -> Metric {
    let cumulative = AggregationTemporality::Cumulative.into();
    Metric {
        name: name(family).to_owned(),
        description: family.help.clone().into_owned(),
        unit: unit(family.unit).to_owned(),
        data: Some(match family.kind {
            Kind::Counter => Data::Sum(Sum {
                data_points: Vec::new(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            }),
            Kind::Gauge => Data::Gauge(Gauge::default()),
            Kind::Histogram => Data::ExponentialHistogram(ExponentialHistogram {
                data_points: Vec::new(),
                aggregation_temporality: cumulative,
            }),
        }),
        ..Metric::default()
    }
}

/// The family's name without its unit, where the receiver adds it again.
///
/// It does not where the word stands elsewhere in the name, too, or ends what
/// is left, and it adds `ratio` to gauges alone: there the name stays whole.
fn name(family: &Family) -> &str {
    let whole: &str = &family.name;
    let Some(unit) = family.unit.as_str() else {
        return whole;
    };
    if family.unit == Unit::Ratio && family.kind != Kind::Gauge {
        return whole;
    }
    match whole.strip_suffix(unit).and_then(|n| n.strip_suffix('_')) {
        Some(short) if !short.ends_with(unit) && !short.split('_').any(|word| word == unit) => {
            short
        }
        _ => whole,
    }
}

/// The unit as UCUM has it. Counts have none: `1` would make `_ratio` of them.
fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::Seconds => "s",
        Unit::Bytes => "By",
        Unit::Ratio => "1",
        Unit::None => "",
    }
}

/// One series at one time.
enum Point {
    Number(NumberDataPoint),
    Histogram(ExponentialHistogramDataPoint),
}

impl Point {
    fn new(kind: Kind, series: &Series, resource: &Resource, times: Times) -> Option<Self> {
        let labels = series.labels.iter();
        let attributes: Vec<_> = labels.map(|(name, value)| text(name, value)).collect();
        let number = |value| {
            Self::Number(NumberDataPoint {
                attributes: attributes.clone(),
                // A gauge is of its moment.
                start_time_unix_nano: if kind == Kind::Counter {
                    times.start_ns
                } else {
                    0
                },
                time_unix_nano: times.now_ns,
                value: Some(value),
                ..NumberDataPoint::default()
            })
        };
        match (kind, &series.value) {
            (Kind::Counter | Kind::Gauge, Value::Integer(value)) => {
                Some(number(i64::try_from(*value).map_or(
                    number_data_point::Value::AsDouble(*value as f64),
                    number_data_point::Value::AsInt,
                )))
            }
            (Kind::Counter | Kind::Gauge, Value::Float(value)) => {
                Some(number(number_data_point::Value::AsDouble(*value)))
            }
            (Kind::Histogram, Value::Histogram(histogram)) => {
                let mut point = histogram_point(histogram, resource);
                point.attributes = attributes;
                point.start_time_unix_nano = times.start_ns;
                point.time_unix_nano = times.now_ns;
                Some(Self::Histogram(point))
            }
            _ => None,
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Number(point) => point.encoded_len(),
            Self::Histogram(point) => point.encoded_len(),
        }
    }

    fn add_to(self, metric: &mut Metric) {
        match (self, &mut metric.data) {
            (Self::Number(point), Some(Data::Sum(sum))) => sum.data_points.push(point),
            (Self::Number(point), Some(Data::Gauge(gauge))) => gauge.data_points.push(point),
            (Self::Histogram(point), Some(Data::ExponentialHistogram(histogram))) => {
                histogram.data_points.push(point);
            }
            // `Point::new` goes by the kind that made the metric.
            _ => {}
        }
    }
}

fn histogram_point(histogram: &Histogram, resource: &Resource) -> ExponentialHistogramDataPoint {
    let exemplars = histogram.exemplars.iter();
    ExponentialHistogramDataPoint {
        count: histogram.count(),
        sum: Some(histogram.sum_seconds()),
        scale: SCALE,
        zero_count: histogram.zero,
        zero_threshold: Histogram::ZERO_THRESHOLD,
        positive: Some(buckets(histogram)),
        exemplars: exemplars.map(|one| exemplar(one, resource)).collect(),
        ..ExponentialHistogramDataPoint::default()
    }
}

/// From the first bucket that is not empty to the last, with those between.
fn buckets(histogram: &Histogram) -> Buckets {
    let overflow =
        (histogram.overflow > 0).then_some((Histogram::LAST_INDEX + 1, histogram.overflow));
    let mut buckets = Buckets::default();
    for (index, count) in histogram.buckets.iter().copied().chain(overflow) {
        let index = index - 1;
        if buckets.bucket_counts.is_empty() {
            buckets.offset = index;
        }
        // Indices ascend, and there are 321 of them at most.
        let place = usize::try_from(index - buckets.offset).unwrap_or(0);
        buckets.bucket_counts.resize(place, 0);
        buckets.bucket_counts.push(count);
    }
    buckets
}

fn exemplar(exemplar: &model::Exemplar, resource: &Resource) -> Exemplar {
    let ids = Ids::new(resource, exemplar.time_ns, exemplar.event);
    Exemplar {
        filtered_attributes: vec![integer("event_id", exemplar.event)],
        time_unix_nano: exemplar.time_ns,
        span_id: ids.span(0).to_vec(),
        trace_id: ids.trace.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.seconds)),
    }
}
