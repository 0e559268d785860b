//! Properties that hold for whatever is exported.

use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Unit, Value},
    prometheus::{Format, encode, negotiate},
};
use proptest::prelude::*;

use crate::{
    decode,
    fixture::{family, series},
    strategy::histograms,
};

const OVERFLOW_INDEX: i32 = 8193;

fn of(histogram: &Histogram) -> [Family; 1] {
    let series = series(&[("l", "v")], Value::Histogram(histogram.clone()));
    [family(
        "a_seconds",
        Kind::Histogram,
        Unit::Seconds,
        vec![series],
    )]
}

/// What a classic bucket must hold, by comparing bounds rather than indices.
fn up_to(histogram: &Histogram, bound: f64) -> u64 {
    let below = histogram
        .buckets
        .iter()
        .filter(|(k, _)| Histogram::upper_bound(*k) <= bound);
    histogram.zero + below.map(|(_, count)| count).sum::<u64>()
}

fn is_cumulative(buckets: &[(f64, u64)]) -> bool {
    buckets.is_sorted_by(|(a, a_count), (b, b_count)| a < b && a_count <= b_count)
}

proptest! {
    #[test]
    fn protobuf_loses_nothing(histogram in histograms()) {
        let families = decode::protobuf(&encode(Format::Protobuf, &of(&histogram)));
        let decoded = families[0].metric[0].histogram.as_ref().expect("a histogram");

        prop_assert_eq!(decoded.sample_count, histogram.count());
        prop_assert_eq!(decoded.sample_sum.to_bits(), histogram.sum_seconds().to_bits());
        prop_assert_eq!(decoded.schema, 3);
        prop_assert_eq!(decoded.zero_threshold.to_bits(), 2_f64.powi(-30).to_bits());
        prop_assert_eq!(decoded.zero_count, histogram.zero);
        let mut native = histogram.buckets.clone();
        if histogram.overflow > 0 {
            native.push((OVERFLOW_INDEX, histogram.overflow));
        }
        prop_assert_eq!(decoded.native_buckets(), native);
        // A span that touches its neighbour would be one too many.
        prop_assert!(decoded.positive_span.iter().skip(1).all(|span| span.offset > 0));

        let classic: Vec<_> =
            decoded.bucket.iter().map(|b| (b.upper_bound, b.cumulative_count)).collect();
        prop_assert_eq!(classic.len(), 31);
        prop_assert!(is_cumulative(&classic));
        for (bound, count) in classic {
            prop_assert_eq!(count, up_to(&histogram, bound), "up to {}", bound);
        }
    }

    #[test]
    fn text_agrees_with_the_histogram(histogram in histograms(), openmetrics: bool) {
        let format = if openmetrics { Format::OpenMetrics } else { Format::Text };
        let samples = decode::text(encode(format, &of(&histogram)));
        let (buckets, others) = samples.split_at(32);

        let buckets: Vec<(f64, u64)> = buckets
            .iter()
            .map(|sample| {
                assert_eq!(sample.name, "a_seconds_bucket");
                assert_eq!(sample.labels[1].0, "le");
                let bound = sample.labels[1].1.parse().expect("a bound");
                (bound, sample.value.parse().expect("a count"))
            })
            .collect();
        prop_assert!(is_cumulative(&buckets));
        prop_assert_eq!(buckets[31], (f64::INFINITY, histogram.count()));
        for (bound, count) in &buckets[..31] {
            prop_assert_eq!(*count, up_to(&histogram, *bound), "up to {}", bound);
        }

        prop_assert_eq!(&others[0].name, "a_seconds_sum");
        prop_assert_eq!(others[0].value.parse(), Ok(histogram.sum_seconds()));
        prop_assert_eq!(&others[1].name, "a_seconds_count");
        prop_assert_eq!(others[1].value.parse(), Ok(histogram.count()));
        prop_assert_eq!(others.len(), 2);
    }

    #[test]
    fn any_label_value_survives(value: String, openmetrics: bool) {
        let series = series(&[("a", &value), ("b", &value)], Value::Integer(1));
        let families = [family("x", Kind::Gauge, Unit::None, vec![series])];
        let expected = [("a", &value), ("b", &value)].map(|(n, v)| (n.to_owned(), v.clone()));

        let format = if openmetrics { Format::OpenMetrics } else { Format::Text };
        let samples = decode::text(encode(format, &families));
        prop_assert_eq!(&samples[0].labels, &expected);

        let decoded = decode::protobuf(&encode(Format::Protobuf, &families));
        let labels: Vec<_> = decoded[0].metric[0]
            .label
            .iter()
            .map(|label| (label.name.clone(), label.value.clone()))
            .collect();
        prop_assert_eq!(&labels, &expected);
    }

    #[test]
    fn any_number_survives(number in proptest::num::f64::ANY) {
        let families = [family(
            "x",
            Kind::Gauge,
            Unit::None,
            vec![series(&[], Value::Float(number))],
        )];
        let text: f64 = decode::text(encode(Format::Text, &families))[0]
            .value
            .parse()
            .expect("a number");
        let decoded = decode::protobuf(&encode(Format::Protobuf, &families));
        let binary = decoded[0].metric[0].gauge.as_ref().expect("a gauge").value;
        prop_assert_eq!(binary.to_bits(), number.to_bits());
        // Text has one NaN only.
        prop_assert!(text.to_bits() == number.to_bits() || (text.is_nan() && number.is_nan()));
    }

    #[test]
    fn no_header_makes_negotiation_panic(header in r"[a-z/*;,=.q0-9 \x22+-]{0,80}|.*") {
        negotiate(Some(&header));
    }
}
