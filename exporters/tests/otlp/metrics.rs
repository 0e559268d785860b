//! Families as metrics.

use std::{collections::HashMap, sync::Arc};

use kldtrace_exporters::{
    model::{Exemplar, Family, Histogram, Kind, Series, Unit, Value},
    otlp::{
        Compression, Otlp, Protocol, SCHEMA_URL,
        metrics::{MAX_BYTES, requests},
    },
    push::Verdict,
};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::any_value,
    metrics::v1::{
        AggregationTemporality, Metric, exemplar, metric::Data, number_data_point::Value as Number,
    },
};
use proptest::prelude::*;
use prost::Message as _;

use crate::{
    ENDED, PROTOCOLS, TIMES, otlp, pairs, push, push_metrics,
    receiver::{Body, Receiver},
    resource, settings, slow, text,
};

/// A family with the given series.
pub fn family(name: &'static str, kind: Kind, unit: Unit, series: Vec<Series>) -> Family {
    Family {
        name: name.into(),
        help: "Time \"from\" a to b.".into(),
        kind,
        unit,
        series,
    }
}

/// A series with one label.
fn series(pool: &str, value: Value) -> Series {
    Series {
        labels: vec![("pool".into(), Arc::from(pool))],
        value,
    }
}

/// A histogram's family with one series.
pub fn latency(value: Value) -> Family {
    let series = vec![series("tank", value)];
    family(
        "kldtrace_test_latency_seconds",
        Kind::Histogram,
        Unit::Seconds,
        series,
    )
}

/// Families on their way: all metrics of all requests.
pub fn encoded(families: &[Family]) -> Vec<Metric> {
    let requests = requests(families, &resource(), TIMES, MAX_BYTES);
    let metrics = requests.iter().flat_map(|bytes| decoded(bytes));
    metrics.collect()
}

fn decoded(bytes: &[u8]) -> Vec<Metric> {
    let request = ExportMetricsServiceRequest::decode(bytes).unwrap();
    Body::Metrics(request).metrics()
}

fn counter(name: &'static str, values: impl IntoIterator<Item = Value>) -> Family {
    let series = values.into_iter().map(|value| series("tank", value));
    family(name, Kind::Counter, Unit::None, series.collect())
}

fn gauge(value: Value) -> Family {
    let series = vec![series("tank", value)];
    family(
        "kldtrace_test_share_ratio",
        Kind::Gauge,
        Unit::Ratio,
        series,
    )
}

fn histogram() -> Histogram {
    Histogram {
        sum_ns: 1_500_000_000,
        zero: 1,
        buckets: vec![(-1, 2), (0, 3)],
        overflow: 0,
        exemplars: vec![Exemplar {
            event: 9,
            seconds: 0.9,
            time_ns: ENDED + 9,
        }],
    }
}

#[tokio::test]
async fn all_kinds_arrive_by_both_protocols_compressed_and_not() {
    let families = [
        counter("kldtrace_test_things", [Value::Integer(3)]),
        gauge(Value::Float(0.1 + 0.2)),
        latency(Value::Histogram(histogram())),
    ];
    for protocol in PROTOCOLS {
        for compression in [Compression::Gzip, Compression::None] {
            let receiver = Receiver::start(protocol).await;
            let mut settings = settings(receiver.url(), protocol);
            settings.compression = compression;
            let mut otlp = Otlp::new(&settings, resource()).unwrap();
            assert_eq!(push_metrics(&mut otlp, &families).await, Verdict::Taken);
            let came = receiver.came();
            assert_eq!(came.len(), 1);
            assert_eq!(came[0].gzip, compression == Compression::Gzip);
            assert_eq!(receiver.metrics(), encoded(&families));
            let Body::Metrics(request) = &came[0].body else {
                panic!("metrics");
            };
            let all = &request.resource_metrics[0];
            let resource = &all.resource.as_ref().unwrap().attributes;
            assert!(pairs(resource).contains(&("host.name", text("node-1"))));
            assert_eq!(all.schema_url, SCHEMA_URL);
            let scope = all.scope_metrics[0].scope.as_ref().unwrap();
            assert_eq!((&*scope.name, &*scope.version), ("kldtrace", "1.2.3"));
        }
    }
}

#[test]
fn a_counter_is_cumulative_monotonic_and_since_its_start() {
    let values = [
        Value::Integer(3),
        Value::Integer(i64::MAX as u64),
        // OTLP has no whole number of that size.
        Value::Integer(1 << 63),
        Value::Float(0.5),
    ];
    let metric = encoded(&[counter("kldtrace_test_things", values)]).remove(0);
    assert_eq!(metric.description, "Time \"from\" a to b.");
    let Some(Data::Sum(sum)) = metric.data else {
        panic!("{:?}", metric.data);
    };
    assert!(sum.is_monotonic);
    let cumulative = AggregationTemporality::Cumulative;
    assert_eq!(sum.aggregation_temporality(), cumulative);
    for point in &sum.data_points {
        assert_eq!(point.start_time_unix_nano, TIMES.start_ns);
        assert_eq!(point.time_unix_nano, TIMES.now_ns);
        assert_eq!(pairs(&point.attributes), [("pool", text("tank"))]);
    }
    let values: Vec<_> = sum.data_points.iter().map(|one| one.value).collect();
    let expected = [
        Number::AsInt(3),
        Number::AsInt(i64::MAX),
        Number::AsDouble(2_f64.powi(63)),
        Number::AsDouble(0.5),
    ];
    assert_eq!(values, expected.map(Some));
}

#[test]
fn a_gauge_is_of_its_moment() {
    let metric = encoded(&[gauge(Value::Float(0.1 + 0.2))]).remove(0);
    let Some(Data::Gauge(gauge)) = metric.data else {
        panic!("{:?}", metric.data);
    };
    let point = &gauge.data_points[0];
    assert_eq!(point.start_time_unix_nano, 0);
    assert_eq!(point.time_unix_nano, TIMES.now_ns);
    assert_eq!(point.value, Some(Number::AsDouble(0.1 + 0.2)));
}

#[tokio::test]
async fn an_exemplar_leads_to_the_span_of_its_event() {
    let receiver = Receiver::start(Protocol::Grpc).await;
    let mut otlp = otlp(receiver.url(), Protocol::Grpc);
    assert_eq!(push(&mut otlp, &[slow(9)]).await, Verdict::Taken);
    let families = [latency(Value::Histogram(histogram()))];
    assert_eq!(push_metrics(&mut otlp, &families).await, Verdict::Taken);
    let Some(Data::ExponentialHistogram(there)) = receiver.metrics().remove(0).data else {
        panic!("a histogram");
    };
    let [exemplar] = &there.data_points[0].exemplars[..] else {
        panic!("one exemplar");
    };
    let span = &receiver.spans()[0];
    assert_eq!(exemplar.trace_id, span.trace_id);
    assert_eq!(exemplar.span_id, span.span_id);
    assert_eq!(exemplar.value, Some(exemplar::Value::AsDouble(0.9)));
    assert_eq!(exemplar.time_unix_nano, ENDED + 9);
    let event = [("event_id", any_value::Value::IntValue(9))];
    assert_eq!(pairs(&exemplar.filtered_attributes), event);
}

#[test]
fn a_value_of_another_kind_is_left_out() {
    let wrong = latency(Value::Integer(3));
    let other = counter("kldtrace_test_things", [Value::Integer(1)]);
    let metrics = encoded(&[wrong, other]);
    assert_eq!(metrics.len(), 1);
    assert!(encoded(&[]).is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the limit is, all points are there once, and a request is
    /// larger only if one point alone is.
    #[test]
    fn requests_keep_to_their_limit_and_lose_nothing(
        sizes in proptest::collection::vec(0..40_usize, 1..6),
        label in 0..200_usize,
        max_bytes in 0..8_000_usize,
    ) {
        let names = ["a", "b", "c", "d", "e", "f"];
        let families: Vec<_> = sizes.iter().zip(names).map(|(size, name)| {
            let label = "x".repeat(label);
            let all = (0..*size).map(|n| series(&format!("{n}{label}"), Value::Integer(n as u64)));
            family(name, Kind::Counter, Unit::None, all.collect())
        }).collect();
        let mut points: HashMap<String, Vec<u64>> = HashMap::new();
        for request in requests(&families, &resource(), TIMES, max_bytes) {
            let mut in_request = 0;
            for metric in decoded(&request) {
                let Some(Data::Sum(sum)) = metric.data else { panic!("a sum") };
                prop_assert!(!sum.data_points.is_empty());
                in_request += sum.data_points.len();
                for point in sum.data_points {
                    let Some(Number::AsInt(number)) = point.value else { panic!("a number") };
                    points.entry(metric.name.clone()).or_default().push(number.cast_unsigned());
                }
            }
            prop_assert!(request.len() <= max_bytes || in_request == 1, "{}", request.len());
        }
        for (size, name) in sizes.iter().zip(names) {
            let all: Vec<_> = (0..*size as u64).collect();
            prop_assert_eq!(points.remove(name).unwrap_or_default(), all);
        }
    }
}
