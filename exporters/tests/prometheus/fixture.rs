//! What the tests export.

use std::sync::Arc;

use kldtrace_exporters::model::{Exemplar, Family, Histogram, Kind, Series, Unit, Value};

/// A label value with all that a format could trip over.
pub const HOSTILE: &str =
    "a\"b\\c\nd\r\te,f}g{h=\" # EOF\n# TYPE x counter\\n é 𝄞 \u{7f}\u{1}\u{0}\\";

/// A series with the given labels.
pub fn series(labels: &[(&'static str, &str)], value: Value) -> Series {
    Series {
        labels: labels
            .iter()
            .map(|&(name, value)| (name.into(), Arc::from(value)))
            .collect(),
        value,
    }
}

/// A family with the given series.
pub fn family(name: &'static str, kind: Kind, unit: Unit, series: Vec<Series>) -> Family {
    Family {
        name: name.into(),
        help: "Time from \"a\" to \\b,\nwith care.".into(),
        kind,
        unit,
        series,
    }
}

/// A histogram with neighbours, gaps, a zero and an overflow.
pub fn histogram() -> Histogram {
    Histogram {
        sum_ns: 2_100_001_234_567,
        zero: 1,
        // Up to 1 us, about 1 ms (two neighbours), 1 s, and the last bucket.
        buckets: vec![(-160, 2), (-80, 30), (-79, 10), (0, 6), (80, 1)],
        overflow: 1,
        exemplars: Vec::new(),
    }
}

/// The newest first: two in the bucket up to 2^-10 s, one at the end of that up to 2^-9 s,
/// and one beyond all. Their times ascend with their numbers, as Prometheus
/// wants it.
pub fn exemplars() -> Vec<Exemplar> {
    let exemplar = |event: u64, seconds| Exemplar {
        event,
        seconds,
        time_ns: 1_700_000_000_123_456_789 + event * 1_000_000_000,
    };
    vec![
        exemplar(9, 0.0009),
        exemplar(8, 2000.0),
        exemplar(7, 2_f64.powi(-9)),
        exemplar(6, 2_f64.powi(-10)),
    ]
}

/// One family of each kind.
pub fn families() -> Vec<Family> {
    vec![
        family(
            "kldtrace_test_latency_seconds",
            Kind::Histogram,
            Unit::Seconds,
            vec![
                series(
                    &[("pool", "tank"), ("vdev", HOSTILE)],
                    Value::Histogram(histogram()),
                ),
                series(
                    &[("pool", "idle"), ("vdev", "sda")],
                    Value::Histogram(Histogram::default()),
                ),
            ],
        ),
        family(
            "kldtrace_test_sent_bytes",
            Kind::Counter,
            Unit::Bytes,
            vec![series(
                &[("plane", HOSTILE)],
                Value::Integer(9_007_199_254_740_993),
            )],
        ),
        family(
            "kldtrace_test_share_ratio",
            Kind::Gauge,
            Unit::Ratio,
            vec![series(&[], Value::Float(0.1 + 0.2))],
        ),
        family("kldtrace_test_empty", Kind::Gauge, Unit::None, vec![]),
    ]
}
