//! What a receiver's answer means, by the OTLP specification.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use prost::Message;
use tonic::Code;

use crate::push::{
    Verdict,
    answer::{of_web_server, retry_after, words_without},
};

/// Later, without a word of when.
pub fn later(why: impl Into<String>) -> Verdict {
    Verdict::Later {
        why: why.into(),
        after: None,
    }
}

/// A verdict whose words can be shown: what the receiver said is in them as it
/// came, and at their end, where it may be cut.
pub fn shown(verdict: Verdict, secrets: &[String]) -> Verdict {
    let words = |why: &str| words_without(secrets, why);
    match verdict {
        Verdict::Later { why, after } => Verdict::Later {
            why: words(&why),
            after,
        },
        Verdict::Refused { why } => Verdict::Refused { why: words(&why) },
        Verdict::Partly { refused, why } => Verdict::Partly {
            refused,
            why: words(&why),
        },
        Verdict::Taken => Verdict::Taken,
    }
}

/// The part of google.rpc.Status that is read.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

/// google.protobuf.Any.
#[derive(Clone, PartialEq, Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// google.rpc.RetryInfo.
#[derive(Clone, Copy, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RpcDuration>,
}

/// google.protobuf.Duration.
#[derive(Clone, Copy, PartialEq, Message)]
struct RpcDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// What an answer of HTTP means that is no success.
pub fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let said = RpcStatus::decode(body).map_or_else(
        |_| String::from_utf8_lossy(body).into_owned(),
        |status| status.message,
    );
    let number = status.as_u16();
    let why = format!("HTTP {number}: {said}");
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
            if of_web_server(headers, body) =>
        {
            later(format!("HTTP {number} (is it http or https?): {said}"))
        }
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Verdict::Refused { why },
        // The specification would have 500 dropped; but a fault over there says
        // nothing of what is in the push.
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Verdict::Later {
            why,
            after: retry_after(headers),
        },
        _ if status.is_server_error() => Verdict::Later {
            why,
            after: retry_after(headers),
        },
        _ => later(format!("HTTP {number} (a matter of settings): {said}")),
    }
}

/// What a status of gRPC means that the receiver itself set.
pub fn of_grpc(status: &tonic::Status) -> Verdict {
    let code = status.code();
    let said = status.message();
    let why = format!("gRPC {code:?}: {said}");
    match code {
        // Servers have different codes for a message that is over their limit.
        _ if is_size(said) => Verdict::Refused { why },
        Code::InvalidArgument | Code::AlreadyExists | Code::FailedPrecondition => {
            Verdict::Refused { why }
        }
        Code::Unauthenticated | Code::PermissionDenied | Code::NotFound | Code::Unimplemented => {
            later(format!("gRPC {code:?} (a matter of settings): {said}"))
        }
        // The specification would have UNKNOWN and INTERNAL dropped; but a
        // fault over there says nothing of what is in the push. With OK there
        // was no answer that could be read.
        Code::Ok
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Verdict::Later {
            why,
            after: retry_delay(status.details()),
        },
    }
}

/// "received message larger than max" (Go, C++), "message length too large"
/// (tonic).
fn is_size(message: &str) -> bool {
    message.contains("message larger than max") || message.contains("message length too large")
}

/// RetryInfo among the details.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    let status = RpcStatus::decode(details).ok()?;
    let any = status.details.iter();
    let mut infos = any.filter(|any| any.type_url.ends_with("/google.rpc.RetryInfo"));
    let delay = RetryInfo::decode(&*infos.next()?.value).ok()?.retry_delay?;
    let seconds = u64::try_from(delay.seconds).ok()?;
    let nanos = u32::try_from(delay.nanos).ok()?;
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    #[test]
    fn each_code_of_grpc_is_judged_by_the_table() {
        let kind = |code| match of_grpc(&tonic::Status::new(code, "words")) {
            Verdict::Later { why, .. } if why.contains("settings") => "setting",
            Verdict::Later { .. } => "later",
            Verdict::Refused { .. } => "refused",
            other => panic!("{other:?}"),
        };
        // OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED,
        // ABORTED, OUT_OF_RANGE, INTERNAL, UNAVAILABLE, DATA_LOSS.
        for code in [0, 1, 2, 4, 8, 10, 11, 13, 14, 15] {
            assert_eq!(kind(Code::from_i32(code)), "later", "{code}");
        }
        // NOT_FOUND, PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED.
        for code in [5, 7, 12, 16] {
            assert_eq!(kind(Code::from_i32(code)), "setting", "{code}");
        }
        // INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION.
        for code in [3, 6, 9] {
            assert_eq!(kind(Code::from_i32(code)), "refused", "{code}");
        }
        for (code, text) in [
            (
                Code::ResourceExhausted,
                "grpc: received message larger than max (9 vs. 4)",
            ),
            (
                Code::OutOfRange,
                "Error, decoded message length too large: found 9 bytes",
            ),
            (
                Code::Internal,
                "grpc: received message larger than max (9 vs. 4)",
            ),
        ] {
            let status = tonic::Status::new(code, text);
            assert!(
                matches!(of_grpc(&status), Verdict::Refused { .. }),
                "{text}"
            );
        }
    }

    #[test]
    fn each_status_of_http_has_its_meaning() {
        let judged = |status: u16, kind: &'static str, body: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, kind.parse().unwrap());
            headers.insert(header::RETRY_AFTER, "7".parse().unwrap());
            of_http(StatusCode::from_u16(status).unwrap(), &headers, body)
        };
        // Status { message: "bad" }.
        let bad = b"\x12\x03bad";
        for status in [400, 413, 422] {
            let why = format!("HTTP {status}: bad");
            let verdict = judged(status, "application/x-protobuf", bad);
            assert_eq!(verdict, Verdict::Refused { why });
        }
        for status in [408, 429, 500, 502, 503, 504] {
            let after = Some(Duration::from_secs(7));
            let why = format!("HTTP {status}: bad");
            let verdict = judged(status, "application/x-protobuf", bad);
            assert_eq!(verdict, Verdict::Later { why, after });
        }
        for (status, kind, body) in [
            (401, "text/plain", &b"who?"[..]),
            (404, "text/plain", b""),
            (302, "text/plain", b""),
            (400, "text/html", b"<html>"),
            (
                400,
                "text/plain",
                b"Client sent an HTTP request to an HTTPS server.",
            ),
        ] {
            let verdict = judged(status, kind, body);
            assert!(
                matches!(verdict, Verdict::Later { after: None, .. }),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn words_are_harmless_and_without_secrets() {
        let said = format!("\u{1b}[2J sesame {}", "é".repeat(400));
        let verdict = of_grpc(&tonic::Status::new(Code::PermissionDenied, said));
        let Verdict::Later { why, .. } = shown(verdict, &["sesame".to_owned()]) else {
            panic!("later");
        };
        let start = "gRPC PermissionDenied (a matter of settings): [2J [secret] éé";
        assert!(why.starts_with(start), "{why}");
        assert_eq!(why.chars().count(), 300);
    }

    #[test]
    fn retry_info_is_read_and_rubbish_is_not() {
        // By hand: Status { details: [Any { type_url, value: RetryInfo { 3 s } }] }.
        let url = b"type.googleapis.com/google.rpc.RetryInfo";
        let mut any = vec![0x0a, url.len() as u8];
        any.extend_from_slice(url);
        any.extend_from_slice(&[0x12, 4, 0x0a, 2, 0x08, 3]);
        let mut details = vec![0x1a, any.len() as u8];
        details.extend_from_slice(&any);
        assert_eq!(retry_delay(&details), Some(Duration::from_secs(3)));
        assert_eq!(retry_delay(b"\xff\xff"), None);
        assert_eq!(retry_delay(b""), None);
    }
}
