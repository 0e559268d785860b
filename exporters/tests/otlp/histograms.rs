//! Exponential histograms by the arithmetic of the specification ("Metrics
//! Data Model", exponential scale).

use std::time::Duration;

use kldtrace_exporters::model::{Histogram, Value};
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, ExponentialHistogramDataPoint, metric::Data,
};
use proptest::prelude::*;

use crate::{
    TIMES,
    metrics::{encoded, latency},
    strategy::histograms,
};

/// One bucket: over the lower bound, up to the upper, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    lower: f64,
    upper: f64,
    count: u64,
}

/// The buckets of a point that are not empty: `base = 2^(2^-scale)`, and that
/// of index `i` is (`base^i`, `base^(i+1)`].
fn by_specification(point: &ExponentialHistogramDataPoint) -> Vec<Bucket> {
    let base = 2_f64.powf(2_f64.powi(-point.scale));
    let positive = point.positive.as_ref().expect("positive buckets");
    let counts = positive.bucket_counts.iter().zip(positive.offset..);
    counts
        .filter(|(count, _)| **count > 0)
        .map(|(count, index)| Bucket {
            lower: base.powi(index),
            upper: base.powi(index + 1),
            count: *count,
        })
        .collect()
}

/// The same of the model, which says how the kernel counts.
fn by_model(histogram: &Histogram) -> Vec<Bucket> {
    let bounded = histogram.buckets.iter().map(|(index, count)| Bucket {
        lower: Histogram::upper_bound(index - 1),
        upper: Histogram::upper_bound(*index),
        count: *count,
    });
    // Longer than 1024 s: into the next bucket, as nobody knows how long.
    let over = (histogram.overflow > 0).then(|| Bucket {
        lower: 1024.0,
        upper: 1024.0 * 2_f64.powf(0.125),
        count: histogram.overflow,
    });
    bounded.chain(over).collect()
}

/// Buckets are 9 % wide: bounds that agree to a millionth are the same.
fn agree(a: &[Bucket], b: &[Bucket]) -> bool {
    let close = |a: f64, b: f64| (a / b - 1.0).abs() < 1e-6;
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.count == b.count && close(a.lower, b.lower) && close(a.upper, b.upper))
}

/// The one point of a histogram on its way.
fn point(histogram: &Histogram) -> ExponentialHistogramDataPoint {
    let value = Value::Histogram(histogram.clone());
    let metric = encoded(&[latency(value)]).remove(0);
    let Some(Data::ExponentialHistogram(there)) = metric.data else {
        panic!("{:?}", metric.data);
    };
    let cumulative = AggregationTemporality::Cumulative;
    assert_eq!(there.aggregation_temporality(), cumulative);
    assert_eq!(there.data_points.len(), 1);
    there.data_points[0].clone()
}

proptest! {
    #[test]
    fn nothing_is_lost_on_the_way(histogram in histograms()) {
        let point = point(&histogram);
        let buckets = by_specification(&point);
        prop_assert!(agree(&buckets, &by_model(&histogram)), "{:?}", buckets);

        // What a receiver checks: the count is that of all buckets.
        let in_buckets: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        prop_assert_eq!(point.count, point.zero_count + in_buckets);
        prop_assert_eq!(point.zero_count, histogram.zero);
        prop_assert!(buckets.iter().all(|bucket| bucket.lower >= point.zero_threshold * 0.999_999));
        prop_assert_eq!(point.scale, 3);
        // Neither end is padded.
        let counts = &point.positive.as_ref().unwrap().bucket_counts;
        prop_assert!(counts.first() != Some(&0) && counts.last() != Some(&0));
        prop_assert!(point.negative.is_none() && point.min.is_none() && point.max.is_none());

        prop_assert_eq!(point.start_time_unix_nano, TIMES.start_ns);
        prop_assert_eq!(point.time_unix_nano, TIMES.now_ns);
    }

    /// Up to the nanosecond for 26 days, and to the last digits of a double
    /// beyond.
    #[test]
    fn sums_are_seconds_and_exact(sum_ns: u64, shift in 0_u32..60) {
        let sum_ns = sum_ns >> shift;
        let sum = point(&Histogram { sum_ns, ..Histogram::default() }).sum.unwrap();
        let back = Duration::try_from_secs_f64(sum).unwrap().as_nanos() as u64;
        if sum_ns < 1 << 51 {
            prop_assert_eq!(back, sum_ns);
        }
        prop_assert!(back.abs_diff(sum_ns) <= sum_ns >> 51, "{} {}", back, sum_ns);
    }
}

#[test]
fn an_empty_histogram_is_there_and_empty() {
    let point = point(&Histogram::default());
    assert_eq!(
        (point.count, point.sum, point.zero_count),
        (0, Some(0.0), 0)
    );
    assert!(by_specification(&point).is_empty());
}

#[test]
fn the_first_and_the_last_bucket_have_their_bounds() {
    let ends = [Histogram::FIRST_INDEX, Histogram::LAST_INDEX];
    let histogram = Histogram {
        sum_ns: 1,
        zero: 3,
        buckets: ends.map(|index| (index, 5)).to_vec(),
        overflow: 7,
        exemplars: Vec::new(),
    };
    let point = point(&histogram);
    let buckets = by_specification(&point);
    let [first, last, over] = &buckets[..] else {
        panic!("{buckets:?}")
    };
    // Nothing between zero and the first: 2^-30 s ends one and begins the other.
    assert!(
        (first.lower / 2_f64.powi(-30) - 1.0).abs() < 1e-12,
        "{first:?}"
    );
    assert_eq!(point.zero_threshold, 2_f64.powi(-30));
    for (bound, bucket) in [(last.upper, last), (over.lower, over)] {
        assert!((bound / 1024.0 - 1.0).abs() < 1e-12, "{bucket:?}");
    }
    assert_eq!((first.count, last.count, over.count), (5, 5, 7));
    // From -240, one index less than the kernel's, to 80.
    let positive = point.positive.unwrap();
    assert_eq!((positive.offset, positive.bucket_counts.len()), (-240, 321));
}

#[test]
fn what_is_longer_than_all_buckets_stands_alone() {
    let histogram = Histogram {
        sum_ns: 5_000_000_000_000,
        overflow: 2,
        ..Histogram::default()
    };
    let point = point(&histogram);
    let positive = point.positive.as_ref().unwrap();
    assert_eq!(
        (positive.offset, &positive.bucket_counts[..]),
        (80, &[2][..])
    );
    assert_eq!((point.count, point.sum), (2, Some(5000.0)));
}
