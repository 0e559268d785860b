//! What a receiver's answer means, by the OTLP specification.
//!
//! <https://opentelemetry.io/docs/specs/otlp/>

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use prost::Message;
use tonic::Code;

use super::request::Partial;
use crate::push::Verdict;

/// Most characters of a receiver's words that are kept.
const WORDS: usize = 300;

/// A receiver's words, which may be anything: few, and none that could move a
/// cursor or end a line.
pub fn words(text: &str) -> String {
    let visible = text.chars().take(WORDS);
    let visible = visible.map(|c| {
        if c.is_control() || is_format(c) {
            ' '
        } else {
            c
        }
    });
    visible.collect::<String>().trim().to_owned()
}

/// Marks that turn the direction of what follows.
fn is_format(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Later, without a word of when.
pub fn later(why: impl Into<String>) -> Verdict {
    Verdict::Later {
        why: why.into(),
        after: None,
    }
}

/// A request was taken, but for what `partial` says. `entries`: how many of
/// ours were in it, each of which may have been several for the receiver.
pub fn taken(partial: &Partial, entries: usize) -> Verdict {
    match u64::try_from(partial.rejected) {
        Ok(rejected @ 1..) => Verdict::Partly {
            refused: rejected.min(entries as u64),
            why: words(&partial.message),
        },
        _ => Verdict::Taken,
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

/// What an answer of HTTP means that is not 200.
pub fn of_http(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Verdict {
    let said = RpcStatus::decode(body).map_or_else(
        |_| String::from_utf8_lossy(&body[..body.len().min(4 * WORDS)]).into_owned(),
        |status| status.message,
    );
    let said = words(&said);
    let code = status.as_u16();
    match code {
        429 | 502 | 503 | 504 => Verdict::Later {
            why: format!("HTTP {code}: {said}"),
            after: headers
                .get(header::RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now())),
        },
        400 | 413 | 422 | 500 => Verdict::Refused {
            why: format!("HTTP {code}: {said}"),
        },
        _ => later(format!(
            "HTTP {code}, which is a matter of settings: {said}"
        )),
    }
}

/// Seconds, or a date.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// What a status of gRPC means that the receiver itself set.
pub fn of_grpc(status: &tonic::Status) -> Verdict {
    let code = status.code();
    let said = words(status.message());
    let why = format!("gRPC {code:?}: {said}");
    match code {
        // gRPC's own servers say so when a message is over their limit.
        Code::ResourceExhausted | Code::OutOfRange if is_size(status.message()) => {
            Verdict::Refused { why }
        }
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => Verdict::Later {
            why,
            after: retry_delay(status.details()),
        },
        Code::Unauthenticated | Code::PermissionDenied | Code::NotFound | Code::Unimplemented => {
            later(format!(
                "gRPC {code:?}, which is a matter of settings: {said}"
            ))
        }
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Internal => Verdict::Refused { why },
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
    use super::*;

    #[test]
    fn words_are_few_and_harmless() {
        assert_eq!(words("  a\r\n\u{1b}[2Jb\u{202e}c\0"), "a   [2Jb c");
        assert_eq!(words(&"é".repeat(1000)).chars().count(), 300);
    }

    #[test]
    fn a_receiver_asks_to_wait_in_seconds_or_until_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let asked = |value| retry_after(value, now);
        assert_eq!(asked(" 7 "), Some(Duration::from_secs(7)));
        let later = "Sun, 06 Nov 1994 08:50:37 GMT";
        assert_eq!(asked(later), Some(Duration::from_mins(1)));
        let past = "Sun, 06 Nov 1994 08:48:37 GMT";
        assert_eq!(asked(past), Some(Duration::ZERO));
        assert_eq!(asked("-1"), None);
        assert_eq!(asked("soon"), None);
    }

    #[test]
    fn each_code_of_grpc_is_judged_by_the_table() {
        let kind = |code| match of_grpc(&tonic::Status::new(code, "words")) {
            Verdict::Later { why, .. } if why.contains("settings") => "setting",
            Verdict::Later { .. } => "later",
            Verdict::Refused { .. } => "refused",
            other => panic!("{other:?}"),
        };
        // CANCELLED, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED,
        // OUT_OF_RANGE, UNAVAILABLE, DATA_LOSS.
        for code in [1, 4, 8, 10, 11, 14, 15] {
            assert_eq!(kind(Code::from_i32(code)), "later", "{code}");
        }
        // NOT_FOUND, PERMISSION_DENIED, UNIMPLEMENTED, UNAUTHENTICATED.
        for code in [5, 7, 12, 16] {
            assert_eq!(kind(Code::from_i32(code)), "setting", "{code}");
        }
        // UNKNOWN, INVALID_ARGUMENT, ALREADY_EXISTS, FAILED_PRECONDITION, INTERNAL.
        for code in [2, 3, 6, 9, 13] {
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
        ] {
            let status = tonic::Status::new(code, text);
            assert!(
                matches!(of_grpc(&status), Verdict::Refused { .. }),
                "{text}"
            );
        }
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
