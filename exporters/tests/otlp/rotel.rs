//! A real receiver, which somebody else wrote, prints what it understood.

mod agent;

use std::{collections::BTreeMap, sync::Arc};

use agent::{Rotel, are, bucket};
use kldtrace_exporters::{
    model::{Exemplar, Family, Histogram, Kind, Series, Unit, Value},
    otlp::Protocol,
    push::Verdict,
};

use crate::{
    ENDED, PROTOCOLS, line,
    metrics::{family, latency},
    otlp, push, push_metrics, slow,
};

/// What it prints, but for buckets and what is of the moment: checked by hand,
/// once, against what is pushed.
const EXPECTED: &str = include_str!("rotel/expected.txt");

fn families() -> [Family; 3] {
    let series = |value| {
        let labels = vec![("plane".into(), Arc::from("storage"))];
        vec![Series { labels, value }]
    };
    let histogram = Histogram {
        sum_ns: 1_500_000_001,
        zero: 1,
        // Up to 2^-30 s x 2^(1/8), 2^-7 s and its neighbour, and 1024 s.
        buckets: vec![(-239, 7), (-56, 2), (-55, 3), (80, 1)],
        overflow: 4,
        exemplars: vec![Exemplar {
            event: 1,
            seconds: 0.0079,
            time_ns: ENDED + 1,
        }],
    };
    let sent = series(Value::Integer(9_007_199_254_740_993));
    let share = series(Value::Float(0.1 + 0.2));
    [
        latency(Value::Histogram(histogram)),
        family("kldtrace_test_sent_bytes", Kind::Counter, Unit::Bytes, sent),
        family("kldtrace_test_share_ratio", Kind::Gauge, Unit::Ratio, share),
    ]
}

/// What is printed of each signal, without buckets.
fn sections(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut sections: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut section = "";
    for line in text.lines() {
        if line.starts_with("Resource") && line.ends_with("#0") {
            section = line;
        }
        let is_of_moment = line.starts_with("ObservedTimestamp") || section.is_empty();
        if !is_of_moment && bucket(line).is_none() {
            sections.entry(section).or_default().push(line.trim_end());
        }
    }
    sections
}

#[tokio::test]
async fn all_that_is_pushed_is_understood_as_it_was_meant() {
    for protocol in PROTOCOLS {
        let Some(rotel) = Rotel::start() else { return };
        let port = match protocol {
            Protocol::Grpc => rotel.grpc,
            Protocol::Http => rotel.http,
        };
        let mut otlp = otlp(format!("http://127.0.0.1:{port}"), protocol);
        let records = [slow(1), line(5)];
        assert_eq!(push(&mut otlp, &records).await, Verdict::Taken);
        assert_eq!(push_metrics(&mut otlp, &families()).await, Verdict::Taken);
        rotel.wait("what was pushed", || {
            sections(&rotel.says()) == sections(EXPECTED)
        });

        let says = rotel.says();
        let buckets: Vec<_> = says.lines().filter_map(bucket).collect();
        let step = 2_f64.powf(0.125);
        let (least, seventh) = (2_f64.powi(-30), 2_f64.powi(-7));
        let expected = [
            (0.0, 0.0, 1),
            (least, least * step, 7),
            (seventh / step, seventh, 2),
            (seventh, seventh * step, 3),
            (1024.0 / step, 1024.0, 1),
            (1024.0, 1024.0 * step, 4),
        ];
        assert!(are(&buckets, &expected), "{buckets:?}");
    }
}
