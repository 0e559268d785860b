//! Slow operations as spans.

use std::collections::HashSet;

use kldtrace_exporters::{
    otlp::{Node, Otlp, Protocol, Resource, Signals},
    push::Verdict,
    record::{Attribute, Record, Span},
};
use opentelemetry_proto::tonic::trace::v1::{self, span::SpanKind};
use proptest::prelude::*;

use crate::{
    ENDED, PROTOCOLS, line, otlp, pairs, push, receiver::Receiver, resource, settings, slow, text,
};

/// What is pushed for records of a node.
async fn spans(records: &[Record<'_>], resource: Resource) -> Vec<v1::Span> {
    let receiver = Receiver::start(Protocol::Http).await;
    let settings = settings(receiver.url(), Protocol::Http);
    let mut otlp = Otlp::new(&settings, resource).unwrap();
    assert_eq!(push(&mut otlp, records).await, Verdict::Taken);
    receiver.spans()
}

#[tokio::test]
async fn a_slow_operation_and_its_stages_are_parent_and_children() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let mut otlp = otlp(receiver.url(), protocol);
        let records = [line(1), slow(0)];
        assert_eq!(push(&mut otlp, &records).await, Verdict::Taken);
        let spans = receiver.spans();
        let [whole, log, cpu] = &spans[..] else {
            panic!("{spans:?}")
        };

        assert_eq!(whole.name, "zfs fsync");
        assert_eq!(whole.kind(), SpanKind::Internal);
        assert!(whole.parent_span_id.is_empty());
        assert_eq!(whole.end_time_unix_nano, ENDED);
        assert_eq!(whole.start_time_unix_nano, ENDED - 141_000_000);
        let attributes = pairs(&whole.attributes);
        assert!(attributes.contains(&("dataset", text("rpool/pg"))));
        assert!(attributes.contains(&("unit", text("postgresql@15-main.service"))));

        let start = whole.start_time_unix_nano;
        for (stage, name, from, to) in [
            (log, "zil_commit", start, start + 138_000_000),
            (cpu, "cpu", start + 138_000_000, start + 140_000_000),
        ] {
            assert_eq!(stage.name, name);
            assert_eq!(stage.trace_id, whole.trace_id);
            assert_eq!(stage.parent_span_id, whole.span_id);
            assert_eq!(stage.start_time_unix_nano, from);
            assert_eq!(stage.end_time_unix_nano, to);
            let order = [("kldtrace.stage.order", text("unknown"))];
            assert_eq!(pairs(&stage.attributes), order);
        }
    }
}

/// Names of attributes by OpenTelemetry's semantic conventions 1.37:
/// `service`, `host` and `os` of their resource registry.
#[tokio::test]
async fn the_resource_is_the_node_by_the_conventions() {
    let receiver = Receiver::start(Protocol::Grpc).await;
    let mut otlp = otlp(receiver.url(), Protocol::Grpc);
    push(&mut otlp, &[slow(0)]).await;
    let expected = [
        ("service.name", text("kldtrace")),
        ("service.version", text("1.2.3")),
        ("service.instance.id", text("node-1")),
        ("host.name", text("node-1")),
        ("host.arch", text("amd64")),
        ("os.type", text("linux")),
        ("os.version", text("6.12.9-amd64")),
    ];
    let resources = receiver.resources();
    assert_eq!(resources.len(), 2);
    for resource in resources {
        assert_eq!(pairs(&resource.attributes), expected);
    }
}

#[tokio::test]
async fn what_is_not_known_of_a_node_is_left_out() {
    let receiver = Receiver::start(Protocol::Http).await;
    let node = Node {
        version: "1.2.3",
        instance: "",
        host: "",
        arch: "riscv64",
        kernel: "",
    };
    let settings = settings(receiver.url(), Protocol::Http);
    let mut otlp = Otlp::new(&settings, Resource::new(&node)).unwrap();
    push(&mut otlp, &[slow(0)]).await;
    let resource = receiver.resources().remove(0);
    let expected = [
        ("service.name", text("kldtrace")),
        ("service.version", text("1.2.3")),
        ("host.arch", text("riscv64")),
        ("os.type", text("linux")),
    ];
    assert_eq!(pairs(&resource.attributes), expected);
}

fn ids(spans: &[v1::Span]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let spans = spans.iter();
    spans
        .map(|span| (span.trace_id.clone(), span.span_id.clone()))
        .collect()
}

#[tokio::test]
async fn ids_are_of_the_event_and_the_node_and_stay() {
    let records: Vec<_> = (0..50).map(slow).collect();
    let first = ids(&spans(&records, resource()).await);
    // As after a restart: another client, which is pushed the same once more.
    let again = ids(&spans(&records, resource()).await);
    assert_eq!(first, again);
    // By SipHash-2-4 with a key of zeros, reckoned by another program: another
    // release has the same.
    let (trace, span) = first[0].clone();
    let trace = u128::from_be_bytes(trace.try_into().unwrap());
    let span = u64::from_be_bytes(span.try_into().unwrap());
    assert_eq!(trace, 0xc678_9a11_b8ac_21a1_9732_f059_1344_789e);
    assert_eq!(span, 0x05eb_71a8_29a0_ab3d);

    for (trace, span) in &first {
        assert_eq!((trace.len(), span.len()), (16, 8));
        assert!(trace.iter().any(|byte| *byte > 0) && span.iter().any(|byte| *byte > 0));
    }
    let traces: HashSet<_> = first.iter().map(|(trace, _)| trace).collect();
    let all: HashSet<_> = first.iter().map(|(_, span)| span).collect();
    assert_eq!((traces.len(), all.len()), (50, 150));

    let other = Node {
        version: "1.2.3",
        instance: "node-2",
        host: "node-2",
        arch: "x86_64",
        kernel: "",
    };
    let other = ids(&spans(&records, Resource::new(&other)).await);
    assert!(other.iter().all(|(trace, _)| !traces.contains(trace)));
}

#[tokio::test]
async fn a_signal_that_is_not_wanted_is_not_pushed() {
    let receiver = Receiver::start(Protocol::Http).await;
    let mut settings = settings(receiver.url(), Protocol::Http);
    settings.signals = Signals {
        logs: false,
        metrics: false,
        traces: true,
    };
    let mut otlp = Otlp::new(&settings, resource()).unwrap();
    // Taken, as far as anybody wants it.
    assert_eq!(push(&mut otlp, &[line(1)]).await, Verdict::Taken);
    assert_eq!(receiver.requests(), 0);
    assert_eq!(push(&mut otlp, &[line(1), slow(1)]).await, Verdict::Taken);
    assert_eq!((receiver.requests(), receiver.spans().len()), (1, 3));
    assert!(receiver.logs().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the numbers are, damaged ones among them.
    #[test]
    fn children_lie_within_their_parent(
        time_ns: u64,
        duration_ns: u64,
        stages in proptest::collection::vec(any::<u64>(), 0..8),
        id: u64,
    ) {
        let record = Record {
            time_ns,
            attributes: vec![("event_id", Attribute::Integer(id))],
            span: Some(Span {
                name: "x".to_owned(),
                duration_ns,
                stages: stages.iter().map(|ns| ("stage", *ns)).collect(),
            }),
            ..Record::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let spans = runtime.block_on(spans(&[record], resource()));
        prop_assert_eq!(spans.len(), stages.len() + 1);
        let (whole, children) = spans.split_first().unwrap();
        prop_assert!(whole.start_time_unix_nano <= whole.end_time_unix_nano);
        let mut from = whole.start_time_unix_nano;
        for child in children {
            prop_assert_eq!(child.start_time_unix_nano, from);
            prop_assert!(child.end_time_unix_nano >= from);
            from = child.end_time_unix_nano;
        }
        prop_assert!(from <= whole.end_time_unix_nano);
        // All of a stage that fits is in its span.
        let sum = stages.iter().try_fold(0_u64, |sum, ns| sum.checked_add(*ns));
        if let Some(sum) = sum.filter(|sum| *sum <= duration_ns && duration_ns <= time_ns) {
            prop_assert_eq!(from - whole.start_time_unix_nano, sum);
        }
    }
}
