//! What receivers answer, and what is made of it. Whatever it is, the same push
//! is taken once the receiver takes it.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kldtrace_exporters::{
    otlp::{Otlp, Protocol},
    push::Verdict,
};

use crate::{
    PROTOCOLS, line, otlp, push,
    receiver::{Answer, Receiver},
    resource, settings, slow,
};

/// The verdict on a push of two operations that is answered so, after a proof
/// that the next is taken, and whole.
async fn verdict(protocol: Protocol, answer: Answer) -> Verdict {
    let receiver = Receiver::start(protocol).await;
    receiver.answer([answer]);
    let mut otlp = otlp(receiver.url(), protocol);
    let records = [slow(1), slow(2)];
    let verdict = push(&mut otlp, &records).await;
    if !matches!(verdict, Verdict::Partly { .. }) {
        assert_eq!(
            push(&mut otlp, &records).await,
            Verdict::Taken,
            "{verdict:?}"
        );
    }
    assert_eq!(receiver.logs().len(), 2, "{verdict:?}");
    assert_eq!(receiver.spans().len(), 6, "{verdict:?}");
    verdict
}

#[track_caller]
fn later(verdict: &Verdict, says: &str) -> Option<Duration> {
    match verdict {
        Verdict::Later { why, after } if why.contains(says) => *after,
        _ => panic!("not later with {says:?}: {verdict:?}"),
    }
}

#[tokio::test]
async fn what_is_rejected_of_a_push_is_counted_by_entries() {
    for protocol in PROTOCOLS {
        for (rejected, refused) in [(1, 1), (2, 2), (5, 2)] {
            let answer = Answer::taken(protocol, rejected, "too old");
            let why = format!("{rejected} log records rejected: too old");
            let verdict = verdict(protocol, answer).await;
            assert_eq!(verdict, Verdict::Partly { refused, why });
        }
        let receiver = Receiver::start(protocol).await;
        let mut otlp = otlp(receiver.url(), protocol);
        // Both logs, and no span: one entry has them all.
        receiver.answer([
            Answer::taken(protocol, 0, ""),
            Answer::taken(protocol, 3, "too long"),
        ]);
        let verdict = push(&mut otlp, &[line(1), slow(2)]).await;
        let why = "3 spans rejected: too long".to_owned();
        assert_eq!(verdict, Verdict::Partly { refused: 1, why });
    }
}

#[tokio::test]
async fn a_warning_is_no_loss() {
    for protocol in PROTOCOLS {
        let answer = Answer::taken(protocol, 0, "use\nanother name");
        let why = "use another name".to_owned();
        let verdict = verdict(protocol, answer).await;
        assert_eq!(verdict, Verdict::Partly { refused: 0, why });
    }
    let odd = Answer::taken(Protocol::Http, -1, "");
    let receiver = Receiver::start(Protocol::Http).await;
    receiver.answer([odd]);
    let mut otlp = otlp(receiver.url(), Protocol::Http);
    assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
}

#[tokio::test]
async fn a_busy_receiver_says_when_to_come_again() {
    for status in [429, 503] {
        let answer = Answer::http(status, "busy").with("retry-after", "17");
        let verdict = verdict(Protocol::Http, answer).await;
        let words = format!("HTTP {status}: busy");
        assert_eq!(later(&verdict, &words), Some(Duration::from_secs(17)));
    }
    // UNAVAILABLE, RESOURCE_EXHAUSTED.
    for code in [14, 8] {
        let details = BASE64_STANDARD.encode(retry_info(3));
        let answer = Answer::grpc(code, "busy").with("grpc-status-details-bin", &details);
        let verdict = verdict(Protocol::Grpc, answer).await;
        assert_eq!(later(&verdict, ": busy"), Some(Duration::from_secs(3)));
    }
}

/// google.rpc.Status with RetryInfo in its details, by hand.
fn retry_info(seconds: u8) -> Vec<u8> {
    let url = b"type.googleapis.com/google.rpc.RetryInfo";
    let mut any = vec![0x0a, url.len() as u8];
    any.extend_from_slice(url);
    any.extend_from_slice(&[0x12, 4, 0x0a, 2, 0x08, seconds]);
    let mut details = vec![0x08, 14, 0x1a, any.len() as u8];
    details.extend_from_slice(&any);
    details
}

#[tokio::test]
async fn codes_of_grpc_that_may_pass_are_tried_again() {
    // CANCELLED, DEADLINE_EXCEEDED, ABORTED, OUT_OF_RANGE, DATA_LOSS, and, as
    // they say nothing of the push, UNKNOWN and INTERNAL.
    for code in [1, 4, 10, 11, 15, 2, 13] {
        let verdict = verdict(Protocol::Grpc, Answer::grpc(code, "no")).await;
        assert_eq!(later(&verdict, ": no"), None);
    }
}

#[tokio::test]
async fn what_settings_would_mend_says_so() {
    // UNAUTHENTICATED, PERMISSION_DENIED, NOT_FOUND, UNIMPLEMENTED.
    for code in [16, 7, 5, 12] {
        let verdict = verdict(Protocol::Grpc, Answer::grpc(code, "who?")).await;
        later(&verdict, "(a matter of settings): who?");
    }
    for status in [401, 403, 404, 302] {
        let verdict = verdict(Protocol::Http, Answer::http(status, "who?")).await;
        later(
            &verdict,
            &format!("HTTP {status} (a matter of settings): who?"),
        );
    }
}

#[tokio::test]
async fn a_bad_push_is_refused() {
    // INVALID_ARGUMENT, and what servers in Go and tonic say of size.
    for (code, words) in [
        (3, "bad"),
        (8, "grpc: received message larger than max (9 vs. 4)"),
        (11, "Error, decoded message length too large: found 9 bytes"),
    ] {
        let verdict = verdict(Protocol::Grpc, Answer::grpc(code, words)).await;
        let Verdict::Refused { why } = &verdict else {
            panic!("{verdict:?}")
        };
        assert!(why.ends_with(words), "{why}");
    }
    for status in [400, 413, 422] {
        let why = format!("HTTP {status}: bad");
        let verdict = verdict(Protocol::Http, Answer::http(status, "bad")).await;
        assert_eq!(verdict, Verdict::Refused { why });
    }
}

#[tokio::test]
async fn who_is_no_receiver_has_taken_nothing() {
    let page = || Answer::http(200, "<html>").with("content-type", "text/html");
    let asked = "is this a receiver of OTLP";
    for protocol in PROTOCOLS {
        later(&verdict(protocol, page()).await, asked);
    }
    let html = Answer::http(400, "<html>").with("content-type", "text/html");
    later(&verdict(Protocol::Http, html).await, "is it http or https?");
    // Two blanks are a message with a field that nobody knows; but not OTLP's.
    later(
        &verdict(Protocol::Http, Answer::http(200, "  ")).await,
        asked,
    );
    // Of the right type, and not what it says.
    let mut rubbish = Answer::success(Protocol::Http, b"\xff\xff\xff");
    rubbish.takes = false;
    later(&verdict(Protocol::Http, rubbish).await, asked);
    let mut rubbish = Answer::success(Protocol::Grpc, b"\xff\xff\xff");
    rubbish.takes = false;
    later(&verdict(Protocol::Grpc, rubbish).await, "cannot be read");
}

/// As Prometheus (200), Fluent Bit (201) and Loki (204) say that they took it.
#[tokio::test]
async fn success_without_a_word_is_success() {
    for status in [200, 201, 202, 204] {
        let receiver = Receiver::start(Protocol::Http).await;
        let nothing = || Answer::nothing(status);
        receiver.answer([nothing(), nothing()]);
        let mut otlp = otlp(receiver.url(), Protocol::Http);
        assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
        assert_eq!((receiver.logs().len(), receiver.spans().len()), (1, 3));
    }
}

#[tokio::test]
async fn an_answer_that_does_not_end_has_an_end() {
    for protocol in PROTOCOLS {
        let mut breaks = Answer::taken(protocol, 1, "a part of it").breaking();
        breaks.takes = false;
        later(&verdict(protocol, breaks).await, "");

        let receiver = Receiver::start(protocol).await;
        receiver.answer([Answer::taken(protocol, 1, "a part of it").hanging()]);
        let mut settings = settings(receiver.url(), protocol);
        settings.deadline = Duration::from_millis(500);
        let mut otlp = Otlp::new(&settings, resource()).unwrap();
        let verdict = push(&mut otlp, &[slow(1)]).await;
        later(&verdict, "no answer within 0.5 s");
    }
}

/// tonic 0.14 panics at details that are not base64.
#[tokio::test]
async fn no_header_makes_it_panic() {
    let answer = Answer::grpc(14, "busy").with("grpc-status-details-bin", "*not base64*");
    later(&verdict(Protocol::Grpc, answer).await, "busy");
    let answer = Answer::grpc(14, "%ff%zz").with("grpc-status-details-bin", "////");
    later(&verdict(Protocol::Grpc, answer).await, "");
    let answer = Answer::grpc(14, "busy").with("grpc-status", "ninety");
    later(&verdict(Protocol::Grpc, answer).await, "");
}

#[tokio::test]
async fn who_cannot_be_reached_is_tried_again() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let port = receiver.port;
        receiver.end().await;
        for (url, says) in [
            (format!("http://127.0.0.1:{port}"), "onnection refused"),
            ("http://nobody.invalid:4317".to_owned(), "dns error"),
        ] {
            let mut otlp = otlp(url, protocol);
            later(&push(&mut otlp, &[slow(1)]).await, says);
        }
    }
}

#[tokio::test]
async fn the_other_protocol_is_told_from_ones_own() {
    let receiver = Receiver::start(Protocol::Http).await;
    let mut otlp = otlp(receiver.url(), Protocol::Grpc);
    let asked = "is this a receiver of OTLP by gRPC?";
    later(&push(&mut otlp, &[slow(1)]).await, asked);
    let receiver = Receiver::start(Protocol::Grpc).await;
    let mut otlp = crate::otlp(receiver.url(), Protocol::Http);
    later(&push(&mut otlp, &[slow(1)]).await, "unexpected message");
}

#[tokio::test]
async fn what_is_taken_is_not_pushed_again() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let mut otlp = otlp(receiver.url(), protocol);
        // The logs are taken, the spans are not yet.
        receiver.answer([Answer::taken(protocol, 1, "too old")]);
        receiver.refuse(503, 14, "busy");
        let records = [slow(1), slow(2)];
        later(&push(&mut otlp, &records).await, "busy");
        assert_eq!((receiver.logs().len(), receiver.spans().len()), (2, 0));
        // What was said of the logs is not lost.
        let why = "1 log records rejected: too old".to_owned();
        let partly = Verdict::Partly { refused: 1, why };
        assert_eq!(push(&mut otlp, &records).await, partly);
        assert_eq!((receiver.logs().len(), receiver.spans().len()), (2, 6));
        assert_eq!(receiver.requests(), 3);
    }
}

#[tokio::test]
async fn what_is_set_aside_is_forgotten() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        let mut otlp = otlp(receiver.url(), protocol);
        // The log is taken, and its spans never will be.
        receiver.answer([Answer::taken(protocol, 0, "")]);
        receiver.refuse(400, 3, "bad");
        let verdict = push(&mut otlp, &[slow(1)]).await;
        assert!(matches!(verdict, Verdict::Refused { .. }), "{verdict:?}");
        // Nothing is known of it any more.
        assert_eq!(push(&mut otlp, &[slow(1)]).await, Verdict::Taken);
        assert_eq!((receiver.logs().len(), receiver.spans().len()), (2, 3));
    }
}
