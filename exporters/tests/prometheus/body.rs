//! Bodies of scrapes, compressed while they are written, against what is written
//! without compression.

use std::io::Read as _;

use kldtrace_exporters::{
    model::{Family, Histogram, Kind, Series, Unit, Value},
    prometheus::{Body, Encoding, Format, encode},
};

const FORMATS: [Format; 3] = [Format::Text, Format::OpenMetrics, Format::Protobuf];

/// Histograms of `buckets` buckets each, no two alike.
fn families(number: u32, series: u32, buckets: i32) -> Vec<Family> {
    let histogram = |id: u32| Histogram {
        sum_ns: u64::from(id) * 12_345,
        buckets: (0..buckets).map(|n| (n, u64::from(id % 977 + 1))).collect(),
        ..Histogram::default()
    };
    let one = |id: u32| Series {
        labels: vec![("unit".into(), format!("\"{id}\"\\").into())],
        value: Value::Histogram(histogram(id)),
    };
    let family = |id: u32| Family {
        name: format!("a{id}_seconds").into(),
        help: "Help of \"it\".".into(),
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        series: (0..series).map(|n| one(id * 10_000 + n)).collect(),
    };
    (0..number).map(family).collect()
}

fn decoded(body: &Body) -> Vec<u8> {
    let mut out = Vec::new();
    match body.encoding {
        Encoding::Identity => out.clone_from(&body.bytes),
        // One member and nothing after it: not every reader looks for a second.
        Encoding::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(&body.bytes[..]);
            decoder.read_to_end(&mut out).unwrap();
            assert!(decoder.into_inner().is_empty());
        }
        Encoding::Zstd => out = zstd::decode_all(&body.bytes[..]).unwrap(),
    }
    out
}

#[test]
fn what_is_sent_is_what_was_written() {
    // Of less than a piece, of some, of many; of families beyond a piece.
    for (number, series, buckets) in [(1, 3, 5), (3, 400, 20), (60, 100, 40), (2, 9000, 10)] {
        let families = families(number, series, buckets);
        for format in FORMATS {
            let expected = encode(format, &families);
            for encoding in [Encoding::Identity, Encoding::Gzip, Encoding::Zstd] {
                let body = Body::new(format, encoding, &families).unwrap();
                assert_eq!(body.encoding, encoding, "{format:?}");
                assert!(
                    decoded(&body) == expected,
                    "{format:?} {encoding:?} {number}"
                );
            }
        }
    }
}

#[test]
fn small_bodies_go_as_they_are() {
    let small = families(1, 1, 1);
    for (format, encoding) in [
        (Format::Protobuf, Encoding::Gzip),
        (Format::Protobuf, Encoding::Zstd),
    ] {
        let body = Body::new(format, encoding, &small).unwrap();
        assert!(body.bytes.len() < 1000);
        assert_eq!(body.encoding, Encoding::Identity);
        assert_eq!(body.bytes, encode(format, &small));
    }
    let none = Body::new(Format::Text, Encoding::Gzip, &[]).unwrap();
    assert_eq!((none.bytes.len(), none.encoding), (0, Encoding::Identity));
}
