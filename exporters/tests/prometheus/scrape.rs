//! A real Prometheus scrapes each format, and promtool checks the text.

mod harness;

use harness::{Prometheus, Server, check_metrics, installed};
use kldtrace_exporters::{
    model::{Histogram, Kind, Value},
    prometheus::{Format, encode},
};
use serde_json::Value as Json;

use crate::fixture::{HOSTILE, exemplars, families, histogram};

/// Which job scrapes which format.
const JOBS: [(&str, Format); 3] = [
    ("text", Format::Text),
    ("openmetrics", Format::OpenMetrics),
    ("protobuf", Format::Protobuf),
];

#[test]
fn prometheus_stores_what_was_measured() {
    if !installed("prometheus") {
        return;
    }
    let server = Server::start(families());
    let prometheus = Prometheus::start(server.address(), &JOBS.map(|(job, _)| job));
    for (job, _) in JOBS {
        prometheus.wait_for_scrape(job);
    }
    assert_eq!(
        server.negotiated(),
        [Format::Protobuf],
        "a Prometheus with native histograms asks for protobuf"
    );

    for (job, _) in JOBS {
        let sent = prometheus.one(&format!("kldtrace_test_sent_bytes_total{{job='{job}'}}"));
        assert_eq!(sent["metric"]["plane"], HOSTILE, "{job}");
        // 2^53 + 1 is not a double; all formats end at the same neighbour.
        assert_eq!(number(&sent), 9_007_199_254_740_992.0, "{job}");
        let share = prometheus.one(&format!("kldtrace_test_share_ratio{{job='{job}'}}"));
        assert_eq!(number(&share), 0.1 + 0.2, "{job}");
    }
    for job in ["text", "openmetrics"] {
        check_classic(&prometheus, job);
    }
    check_native(&prometheus);
}

fn check_classic(prometheus: &Prometheus, job: &str) {
    let selector =
        |suffix: &str| format!("kldtrace_test_latency_seconds{suffix}{{job='{job}',pool='tank'}}");
    let value = |query: &str| number(&prometheus.one(query));
    assert_eq!(value(&selector("_count")), 51.0);
    assert_eq!(value(&selector("_sum")), histogram().sum_seconds());
    let buckets = selector("_bucket");
    // 1 zero, 2, 30, 10, 6 and 1 in buckets, 1 overflow.
    for (le, expected) in [
        ("9.5367431640625e-07", 3.0),
        ("0.0009765625", 33.0),
        ("0.001953125", 43.0),
        ("1.0", 49.0),
        ("1024.0", 50.0),
        ("+Inf", 51.0),
    ] {
        assert_eq!(
            value(&buckets.replace('}', &format!(",le='{le}'}}"))),
            expected,
            "{le}"
        );
    }
    let median = value(&format!("histogram_quantile(0.5, {buckets})"));
    assert!(
        median > 2_f64.powi(-11) && median <= 2_f64.powi(-10),
        "{median}"
    );
}

fn check_native(prometheus: &Prometheus) {
    let selector = "kldtrace_test_latency_seconds{job='protobuf',pool='tank'}";
    let value = |query: &str| number(&prometheus.one(query));
    assert_eq!(value(&format!("histogram_count({selector})")), 51.0);
    assert_eq!(
        value(&format!("histogram_sum({selector})")),
        histogram().sum_seconds()
    );

    // Buckets as Prometheus understands them: lower and upper bound, count.
    let sample = prometheus.one(selector);
    assert_eq!(sample["metric"]["vdev"], HOSTILE);
    let buckets = sample["histogram"][1]["buckets"]
        .as_array()
        .expect("buckets");
    let buckets: Vec<[f64; 3]> = buckets
        .iter()
        .map(|bucket| [1, 2, 3].map(|field| parse(&bucket[field])))
        .collect();
    let mut expected = vec![[-Histogram::ZERO_THRESHOLD, Histogram::ZERO_THRESHOLD, 1.0]];
    expected.extend(histogram().buckets.iter().map(|&(index, count)| {
        [
            Histogram::upper_bound(index - 1),
            Histogram::upper_bound(index),
            count as f64,
        ]
    }));
    expected.push([f64::MAX, f64::INFINITY, 1.0]);
    assert_eq!(buckets.len(), expected.len());
    for (bucket, expected) in buckets.iter().zip(expected) {
        for (field, expected) in bucket.iter().zip(expected) {
            let same = field == &expected || (field / expected - 1.0).abs() < 1e-15;
            assert!(same, "{bucket:?} is not {expected:?}");
        }
    }

    // Ranks 4 to 33 are in the bucket that ends at 2^-10 s.
    let quantile = |q: f64| value(&format!("histogram_quantile({q}, {selector})"));
    let median = quantile(0.5);
    assert!(median > Histogram::upper_bound(-81) && median <= Histogram::upper_bound(-80));
    assert!(quantile(0.0) <= Histogram::ZERO_THRESHOLD);
    assert_eq!(quantile(1.0), f64::INFINITY, "among the overflow");

    // A histogram with nothing in it is still a native histogram.
    let idle = prometheus.one("kldtrace_test_latency_seconds{job='protobuf',pool='idle'}");
    assert_eq!(idle["histogram"][1]["count"], "0");
}

#[test]
fn prometheus_stores_exemplars() {
    if !installed("prometheus") {
        return;
    }
    let mut families = families();
    let Value::Histogram(histogram) = &mut families[0].series[0].value else {
        panic!("the first of the families is a histogram");
    };
    histogram.exemplars = exemplars();
    let server = Server::start(families);
    let prometheus = Prometheus::start(server.address(), &JOBS.map(|(job, _)| job));
    for (job, suffix, expected) in [
        ("text", "_bucket", vec![]),
        // The newest of each bucket of powers of two.
        (
            "openmetrics",
            "_bucket",
            vec![("9", 0.0009), ("7", 0.001_953_125), ("8", 2000.0)],
        ),
        // Prometheus 2.42 takes the exemplars of a native histogram bucket
        // after bucket, and of one series none that is older than the last.
        ("protobuf", "", vec![("9", 0.0009)]),
    ] {
        prometheus.wait_for_scrape(job);
        let series = format!("kldtrace_test_latency_seconds{suffix}{{job='{job}'}}");
        let stored = prometheus.exemplars(&series);
        let mut stored: Vec<_> = stored
            .iter()
            .map(|one| {
                let seconds = one["timestamp"].as_f64().expect("a time");
                assert!((1.7e9..1.7e9 + 100.0).contains(&seconds), "{one}");
                (
                    one["labels"]["event_id"].as_str().expect("a label"),
                    parse(&one["value"]),
                )
            })
            .collect();
        stored.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert_eq!(stored, expected, "{job}");
    }
}

#[test]
fn promtool_finds_nothing_to_mend() {
    if !installed("promtool") {
        return;
    }
    check_metrics(&encode(Format::Text, &families()));
    // promtool reads OpenMetrics as 0.0.4: a counter's description is then that
    // of another family, and a quote in a help text need not be escaped.
    let mut families = families();
    families.retain(|family| family.kind != Kind::Counter);
    for family in &mut families {
        family.help = "Words.".into();
    }
    check_metrics(&encode(Format::OpenMetrics, &families));
}

/// The number of an instant sample.
fn number(sample: &Json) -> f64 {
    parse(&sample["value"][1])
}

fn parse(field: &Json) -> f64 {
    field
        .as_str()
        .and_then(|text| text.parse().ok())
        .expect("a number")
}
