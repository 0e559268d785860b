//! Events and lines as log records.

use std::time::{SystemTime, UNIX_EPOCH};

use kldtrace_exporters::{
    otlp::SCHEMA_URL,
    push::Verdict,
    record::{Record, Severity},
};
use opentelemetry_proto::tonic::{
    common::v1::any_value::Value,
    logs::v1::{LogRecord, SeverityNumber},
};

use crate::{
    ENDED, PROTOCOLS, line, otlp, pairs, push,
    receiver::{Body, Receiver},
    slow, text,
};

fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

#[tokio::test]
async fn every_field_arrives_by_both_protocols() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let mut otlp = otlp(receiver.url(), protocol);
        let before = now_ns();
        let records = [slow(7), line(5)];
        assert_eq!(push(&mut otlp, &records).await, Verdict::Taken);
        let logs = receiver.logs();
        let [slow, line] = &logs[..] else {
            panic!("{logs:?}")
        };

        assert_eq!(slow.time_unix_nano, ENDED + 7);
        assert!((before..=now_ns()).contains(&slow.observed_time_unix_nano));
        assert_eq!(slow.severity_number(), SeverityNumber::Warn);
        assert_eq!(slow.severity_text, "warn");
        assert_eq!(slow.event_name, "zfs.slow_operation");
        let body = slow.body.clone().unwrap().value.unwrap();
        let said = "fsync on rpool/pg took 141ms: zil_commit 138ms, cpu 2.00ms";
        assert_eq!(body, text(said));
        let attributes = [
            ("unit", text("postgresql@15-main.service")),
            ("event_id", Value::IntValue(7)),
            ("dataset", text("rpool/pg")),
            ("op", text("fsync")),
            ("duration_seconds", Value::DoubleValue(0.141)),
            ("process.pid", Value::IntValue(4711)),
            // OTLP has no number of that size.
            ("bytes", text("18446744073709551615")),
        ];
        assert_eq!(pairs(&slow.attributes), attributes);
        // The operation's own span, which came by itself.
        let spans = receiver.spans();
        assert_eq!(slow.trace_id, spans[0].trace_id);
        assert_eq!(slow.span_id, spans[0].span_id);

        assert_eq!(line.time_unix_nano, 5);
        assert_eq!(line.severity_number(), SeverityNumber::Error);
        assert_eq!(line.event_name, "journal");
        let body = line.body.clone().unwrap().value.unwrap();
        assert_eq!(body, text("line 1\nline 2 \u{1f980}"));
        let attributes = [
            ("plane", text("storage")),
            ("process.pid", Value::IntValue(7)),
            ("thread.id", Value::IntValue(8)),
        ];
        assert_eq!(pairs(&line.attributes), attributes);
        // No span tells more of it.
        assert!(line.trace_id.is_empty() && line.span_id.is_empty());
    }
}

#[tokio::test]
async fn who_says_it_and_by_which_conventions_is_there() {
    let receiver = Receiver::start(PROTOCOLS[0]).await;
    let mut otlp = otlp(receiver.url(), PROTOCOLS[0]);
    push(&mut otlp, &[line(1)]).await;
    let Body::Logs(request) = receiver.came().remove(0).body else {
        panic!("logs");
    };
    let logs = &request.resource_logs[0];
    assert_eq!(logs.schema_url, SCHEMA_URL);
    let scope = logs.scope_logs[0].scope.as_ref().unwrap();
    assert_eq!((&*scope.name, &*scope.version), ("kldtrace", "1.2.3"));
}

/// By the table of the data model of logs: the first number of each range, and
/// INFO2 for what is normal but significant.
#[tokio::test]
async fn severities_have_the_numbers_of_the_data_model() {
    let receiver = Receiver::start(PROTOCOLS[0]).await;
    let mut otlp = otlp(receiver.url(), PROTOCOLS[0]);
    let expected = [
        (Severity::Debug, SeverityNumber::Debug),
        (Severity::Info, SeverityNumber::Info),
        (Severity::Notice, SeverityNumber::Info2),
        (Severity::Warn, SeverityNumber::Warn),
        (Severity::Error, SeverityNumber::Error),
        (Severity::Fatal, SeverityNumber::Fatal),
    ];
    let records = expected.map(|(severity, _)| Record {
        severity,
        ..line(1)
    });
    assert_eq!(push(&mut otlp, &records).await, Verdict::Taken);
    let logs = receiver.logs();
    let came: Vec<_> = logs.iter().map(LogRecord::severity_number).collect();
    assert_eq!(came, expected.map(|(_, number)| number));
}
