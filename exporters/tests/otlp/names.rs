//! Names in OTLP lead back to those of `/metrics`.

use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Series, Unit, Value},
    prometheus::{Format, encode},
};

use crate::{
    metrics::{encoded, family},
    translator::{Type, escaped, label, unescaped},
};

/// A family with one series, whose value fits its kind.
fn one(name: &'static str, kind: Kind, unit: Unit) -> Family {
    let value = match kind {
        Kind::Counter | Kind::Gauge => Value::Integer(1),
        Kind::Histogram => Value::Histogram(Histogram::default()),
    };
    let labels = vec![("pool".into(), "tank".into())];
    family(name, kind, unit, vec![Series { labels, value }])
}

/// The name that stands in `/metrics`.
fn scraped(family: &Family) -> String {
    let text = encode(Format::Text, std::slice::from_ref(family));
    let text = String::from_utf8(text).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("# TYPE "));
    line.unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn every_kind_and_unit_has_the_same_name_both_ways() {
    let kinds = [
        (Kind::Counter, Type::Counter),
        (Kind::Gauge, Type::Gauge),
        (Kind::Histogram, Type::Histogram),
    ];
    let names = [
        (Unit::Seconds, "kldtrace_zfs_op_latency_seconds"),
        (Unit::Seconds, "kldtrace_push_last_taken_timestamp_seconds"),
        // The word stands twice: who adds it would not, or not always.
        (Unit::Seconds, "kldtrace_seconds_behind_seconds"),
        (Unit::Seconds, "kldtrace_milliseconds_seconds"),
        (Unit::Bytes, "kldtrace_spool_size_max_bytes"),
        (Unit::Ratio, "kldtrace_share_ratio"),
        (Unit::None, "kldtrace_tcp_connections"),
        (Unit::None, "kldtrace_seconds_in_a_name"),
        (Unit::None, "kldtrace_bytes"),
    ];
    for (kind, kind_there) in kinds {
        for (unit, name) in names {
            let family = one(name, kind, unit);
            let there = &encoded(std::slice::from_ref(&family))[0];
            let expected = scraped(&family);
            for translate in [escaped, unescaped] {
                let back = translate(&there.name, &there.unit, kind_there);
                assert_eq!(back, expected, "{} in {:?}", there.name, there.unit);
            }
        }
    }
    assert_eq!(label("pool"), "pool");
}

/// Where a receiver adds the unit, the name has none: that is OpenTelemetry's
/// own rule for names.
#[test]
fn units_are_those_of_the_conventions_and_not_in_the_name() {
    let seconds = one("kldtrace_x_seconds", Kind::Histogram, Unit::Seconds);
    let bytes = one("kldtrace_x_bytes", Kind::Counter, Unit::Bytes);
    let ratio = one("kldtrace_x_ratio", Kind::Gauge, Unit::Ratio);
    let count = one("kldtrace_xs", Kind::Counter, Unit::None);
    for (family, name, unit) in [
        (seconds, "kldtrace_x", "s"),
        (bytes, "kldtrace_x", "By"),
        (ratio, "kldtrace_x", "1"),
        (count, "kldtrace_xs", ""),
    ] {
        let metric = &encoded(&[family])[0];
        assert_eq!((&*metric.name, &*metric.unit), (name, unit));
    }
}

/// Examples of `otlptranslator`'s documentation: the rules here are right.
#[test]
fn the_rules_give_what_their_authors_say() {
    for (name, unit, kind, expected) in [
        (
            "http.server.request.duration",
            "s",
            Type::Histogram,
            "http_server_request_duration_seconds",
        ),
        ("requests.count", "1", Type::Counter, "requests_count_total"),
        ("memory.usage", "By", Type::Gauge, "memory_usage_bytes"),
        ("a.total.share", "1", Type::Gauge, "a_total_share_ratio"),
        ("total.of.all", "", Type::Counter, "of_all_total"),
        ("2.seconds__x", "s", Type::Histogram, "_2_seconds_x"),
    ] {
        assert_eq!(escaped(name, unit, kind), expected);
    }
    assert_eq!(unescaped("a.b", "s", Type::Counter), "a.b_seconds_total");
    assert_eq!(unescaped("a_total", "By", Type::Counter), "a_bytes_total");
    assert_eq!(label("http.method"), "http_method");
    assert_eq!(label("1a"), "key_1a");
    assert_eq!(label("_a"), "key_a");
    assert_eq!(label("__a"), "__a");
}
