//! The stand-in answers as a real Loki did.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use prost::Message as _;
use serde_json::{Value, json};

use super::{
    double::{Double, EntryAdapter, PushRequest, StreamAdapter, Timestamp},
    now,
};

fn status(double: &Double, head: &str, body: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(("127.0.0.1", double.port)).unwrap();
    let length = body.len();
    let head = format!("{head}\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut reply = [0; 12];
    stream.read_exact(&mut reply).unwrap();
    std::str::from_utf8(&reply[9..]).unwrap().parse().unwrap()
}

const POST: &str = "POST /loki/api/v1/push HTTP/1.1";

fn pushed(double: &Double, labels: &Value, values: &Value) -> u16 {
    let body = json!({"streams": [{"stream": labels, "values": values}]}).to_string();
    let head = format!("{POST}\r\nContent-Type: application/json");
    status(double, &head, body.as_bytes())
}

fn at(nanoseconds: i128) -> Value {
    json!([[(i128::from(now()) + nanoseconds).to_string(), "line"]])
}

const MINUTE: i128 = 60_000_000_000;

#[test]
fn what_is_taken() {
    let double = Double::start();
    let one = json!({"a": "b"});
    for (labels, values) in [
        (&one, at(0)),
        (&one, at(-30 * MINUTE)),
        (&one, at(5 * MINUTE)),
        (&json!({}), at(0)),
        (&one, json!([])),
    ] {
        assert_eq!(pushed(&double, labels, &values), 204, "{values}");
    }
    let twice = at(0);
    assert_eq!(pushed(&double, &one, &twice), 204);
    assert_eq!(pushed(&double, &one, &twice), 204);
    assert_eq!(double.repeated(), 1);
}

#[test]
fn what_is_refused() {
    let double = Double::start();
    let one = json!({"a": "b"});
    assert_eq!(pushed(&double, &one, &at(0)), 204);
    let many: serde_json::Map<_, _> = (0..16).map(|n| (format!("l{n}"), json!("x"))).collect();
    let long = json!([[now().to_string(), "x".repeat(262_145)]]);
    for (labels, values) in [
        (&one, at(-180 * MINUTE)),
        (&json!({"other": "b"}), at(30 * MINUTE)),
        (&json!({"other": "b"}), at(-8 * 24 * 60 * MINUTE)),
        (&Value::Object(many), at(0)),
        (&json!({"1bad": "x"}), at(0)),
        (&json!({"a-b": "x"}), at(0)),
        (&one, long),
        (&one, json!([[now(), "line"]])),
        (&one, json!([["soon", "line"]])),
        (&one, json!([[now().to_string(), "line", {"n": 1}]])),
    ] {
        let shown: String = values.to_string().chars().take(80).collect();
        assert_eq!(pushed(&double, labels, &values), 400, "{labels} {shown}");
    }
    let json = format!("{POST}\r\nContent-Type: application/json");
    assert_eq!(status(&double, &json, b"{"), 400);
    assert_eq!(status(&double, POST, b"{\"streams\":[]}"), 400);
    assert_eq!(status(&double, &json, b"{\"streams\":[]}"), 422);
    let get = "GET /loki/api/v1/push HTTP/1.1";
    assert_eq!(status(&double, get, b""), 405);
}

#[test]
fn good_streams_beside_a_bad_one_are_stored() {
    let double = Double::start();
    let line = [now().to_string(), "line".to_owned()];
    let body = json!({"streams": [
        {"stream": {"a-b": "x"}, "values": [line]},
        {"stream": {"good": "x"}, "values": [line]},
    ]});
    let head = format!("{POST}\r\nContent-Type: application/json");
    assert_eq!(status(&double, &head, body.to_string().as_bytes()), 400);
    assert_eq!(double.stored().len(), 1);
}

#[test]
fn protobuf_comes_in_snappy_blocks_alone() {
    let double = Double::start();
    let nanos = now();
    let timestamp = Timestamp {
        seconds: (nanos / 1_000_000_000).cast_signed(),
        nanos: 7,
    };
    let plain = PushRequest {
        streams: vec![StreamAdapter {
            labels: "{a=\"b\"}".to_owned(),
            entries: vec![EntryAdapter {
                timestamp: Some(timestamp),
                line: "line".to_owned(),
                structured_metadata: Vec::new(),
            }],
        }],
    }
    .encode_to_vec();
    let block = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
    let mut framed = snap::write::FrameEncoder::new(Vec::new());
    framed.write_all(&plain).unwrap();
    let framed = framed.into_inner().unwrap();
    let head = format!("{POST}\r\nContent-Type: application/x-protobuf");
    let said = format!("{head}\r\nContent-Encoding: snappy");
    assert_eq!(status(&double, &head, &block), 204);
    assert_eq!(status(&double, &said, &block), 204);
    assert_eq!(status(&double, &head, &framed), 400);
    assert_eq!(status(&double, &head, &plain), 400);
}
