//! Output checked by hand, once, against the specifications.

use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Unit, Value},
    prometheus::{Format, encode},
};

use crate::{
    decode,
    fixture::{exemplars, family, histogram, series},
};

fn counter() -> Family {
    Family {
        help: "H".into(),
        ..family(
            "a_bytes",
            Kind::Counter,
            Unit::Bytes,
            vec![series(&[("l", "\"\\\n")], Value::Integer(3))],
        )
    }
}

fn text(format: Format, families: &[Family]) -> String {
    String::from_utf8(encode(format, families)).expect("UTF-8")
}

#[test]
fn protobuf_counter() {
    #[rustfmt::skip]
    let expected: &[&[u8]] = &[
        &[50],                                  // length of the family
        &[0x0a, 13], b"a_bytes_total",          // 1 name
        &[0x12, 1], b"H",                       // 2 help
        &[0x18, 0],                             // 3 type: COUNTER
        &[0x22, 21],                            // 4 metric
        &[0x0a, 8],                             //   1 label
        &[0x0a, 1], b"l",                       //     1 name
        &[0x12, 3], b"\"\\\n",                  //     2 value
        &[0x1a, 9],                             //   3 counter
        &[0x09, 0, 0, 0, 0, 0, 0, 0x08, 0x40],  //     1 value: 3.0
        &[0x2a, 5], b"bytes",                   // 5 unit
    ];
    assert_eq!(encode(Format::Protobuf, &[counter()]), expected.concat());
}

#[test]
fn protobuf_native_histogram() {
    let histogram = Histogram {
        sum_ns: 1_500_000_000,
        zero: 2,
        buckets: vec![(-1, 1), (0, 3)],
        overflow: 1,
        exemplars: Vec::new(),
    };
    let family = family(
        "a_seconds",
        Kind::Histogram,
        Unit::Seconds,
        vec![series(&[], Value::Histogram(histogram))],
    );
    #[rustfmt::skip]
    let native: &[&[u8]] = &[
        &[0x28, 6],                                // 5 schema: 3, zigzag
        &[0x31, 0, 0, 0, 0, 0, 0, 0x10, 0x3e],     // 6 zero_threshold: 2^-30
        &[0x38, 2],                                // 7 zero_count
        &[0x62, 4, 0x08, 1, 0x10, 2],              // 12 span: offset -1, 2 long
        &[0x62, 6, 0x08, 0x80, 0x80, 1, 0x10, 1],  // 12 span: offset 8192, 1 long
        &[0x6a, 3, 2, 4, 3],                       // 13 deltas: 1, 2, -2
        &[0x2a, 7], b"seconds",                    // the family's 5 unit
    ];
    let encoded = encode(Format::Protobuf, &[family]);
    let native = native.concat();
    assert_eq!(encoded[encoded.len() - native.len()..], native);
}

#[test]
fn text_and_openmetrics_differ_where_they_must() {
    let gauge = Family {
        help: "\"H\"\\".into(),
        ..family(
            "a_ratio",
            Kind::Gauge,
            Unit::Ratio,
            vec![
                series(&[], Value::Float(0.5)),
                series(&[("l", "1"), ("m", "2")], Value::Float(f64::INFINITY)),
                series(&[("l", "2"), ("m", "2")], Value::Float(f64::NEG_INFINITY)),
                series(&[("l", "3"), ("m", "2")], Value::Float(f64::NAN)),
            ],
        )
    };
    let empty = family("an_empty", Kind::Gauge, Unit::None, vec![]);
    let families = [counter(), gauge, empty];
    assert_eq!(
        text(Format::Text, &families),
        r#"# TYPE a_bytes_total counter
# HELP a_bytes_total H
a_bytes_total{l="\"\\\n"} 3
# TYPE a_ratio gauge
# HELP a_ratio "H"\\
a_ratio 0.5
a_ratio{l="1",m="2"} +Inf
a_ratio{l="2",m="2"} -Inf
a_ratio{l="3",m="2"} NaN
"#
    );
    assert_eq!(
        text(Format::OpenMetrics, &families),
        r#"# TYPE a_bytes counter
# UNIT a_bytes bytes
# HELP a_bytes H
a_bytes_total{l="\"\\\n"} 3
# TYPE a_ratio gauge
# UNIT a_ratio ratio
# HELP a_ratio \"H\"\\
a_ratio 0.5
a_ratio{l="1",m="2"} +Inf
a_ratio{l="2",m="2"} -Inf
a_ratio{l="3",m="2"} NaN
# EOF
"#
    );
}

#[test]
fn text_histogram() {
    let histogram = Histogram {
        sum_ns: 1_000_000_001,
        zero: 1,
        buckets: vec![(80, 1)],
        overflow: 1,
        exemplars: Vec::new(),
    };
    let family = family(
        "a_seconds",
        Kind::Histogram,
        Unit::Seconds,
        vec![series(&[("l", "v")], Value::Histogram(histogram))],
    );
    let text = text(Format::Text, &[family]);
    let lines: Vec<_> = text.lines().skip(2).collect();
    assert_eq!(lines.len(), 34);
    assert_eq!(
        lines[0],
        r#"a_seconds_bucket{l="v",le="9.5367431640625e-07"} 1"#
    );
    assert_eq!(lines[20], r#"a_seconds_bucket{l="v",le="1.0"} 1"#);
    assert_eq!(
        lines[30..],
        [
            r#"a_seconds_bucket{l="v",le="1024.0"} 2"#,
            r#"a_seconds_bucket{l="v",le="+Inf"} 3"#,
            r#"a_seconds_sum{l="v"} 1.000000001"#,
            r#"a_seconds_count{l="v"} 3"#,
        ]
    );
}

#[test]
fn exemplars_stand_where_each_format_has_them() {
    let histogram = Histogram {
        exemplars: exemplars(),
        ..histogram()
    };
    let series = series(&[("l", "v")], Value::Histogram(histogram));
    let families = [family(
        "a_seconds",
        Kind::Histogram,
        Unit::Seconds,
        vec![series],
    )];
    let openmetrics = text(Format::OpenMetrics, &families);
    let with: Vec<_> = openmetrics.lines().filter(|l| l.contains(" # {")).collect();
    assert_eq!(
        with,
        [
            r#"a_seconds_bucket{l="v",le="0.0009765625"} 33 # {event_id="9"} 0.0009 1700000009.123"#,
            r#"a_seconds_bucket{l="v",le="0.001953125"} 43 # {event_id="7"} 0.001953125 1700000007.123"#,
            r#"a_seconds_bucket{l="v",le="+Inf"} 51 # {event_id="8"} 2000.0 1700000008.123"#,
        ]
    );
    assert!(!text(Format::Text, &families).contains(" # {"));

    let decoded = decode::protobuf(&encode(Format::Protobuf, &families));
    let decoded = decoded[0].metric[0].histogram.as_ref().expect("one");
    let read = |one: &decode::Exemplar| {
        let time = one.timestamp.as_ref().expect("a time");
        assert_eq!(time.nanos, 123_456_789);
        assert_eq!(one.label[0].name, "event_id");
        assert_eq!(
            time.seconds - 1_700_000_000,
            one.label[0].value.parse::<i64>().expect("a number")
        );
        (time.seconds - 1_700_000_000, one.value)
    };
    let native: Vec<_> = decoded.exemplars.iter().map(read).collect();
    let all = [
        (9, 0.0009),
        (8, 2000.0),
        (7, 0.001_953_125),
        (6, 0.000_976_562_5),
    ];
    assert_eq!(native, all);
    let classic = decoded
        .bucket
        .iter()
        .filter_map(|b| Some((b.upper_bound, read(b.exemplar.as_ref()?))));
    let classic: Vec<_> = classic.collect();
    assert_eq!(
        classic,
        [
            (2_f64.powi(-10), (9, 0.0009)),
            (2_f64.powi(-9), (7, 0.001_953_125))
        ]
    );
}

#[test]
fn nothing_is_still_a_document() {
    assert_eq!(encode(Format::Text, &[]), b"");
    assert_eq!(encode(Format::OpenMetrics, &[]), b"# EOF\n");
    assert_eq!(encode(Format::Protobuf, &[]), b"");
}
