//! What an answer of Loki, or of whatever answers in its place, means.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, header};
use jiff::{Timestamp, fmt::rfc2822};

use crate::push::Verdict;

/// Most characters of a receiver's words that are repeated.
const WORDS: usize = 300;
/// Longest that a receiver may ask us to wait.
const LONGEST: Duration = Duration::from_mins(5);

/// Judges an answer; `secrets` are not repeated.
pub(super) fn judge(response: &Response<Bytes>, secrets: &[String]) -> Verdict {
    let status = response.status();
    let words = words(response.body(), secrets);
    let said = if words.is_empty() {
        format!("status {}", status.as_u16())
    } else {
        format!("status {}: {words}", status.as_u16())
    };
    let setting = |what: &str| Verdict::Later {
        why: format!("{said} ({what})"),
        after: None,
    };
    match status {
        StatusCode::NO_CONTENT => Verdict::Taken,
        StatusCode::OK if response.body().is_empty() => Verdict::Taken,
        _ if status.is_success() => setting("not Loki's answer: is something in between?"),
        // A web server or proxy cannot know what is wrong with an entry, and
        // everything would be set aside for its sake.
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY if not_loki(response) => {
            setting("not Loki's words: check the address, and http or https")
        }
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => Verdict::Refused { why: said },
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Verdict::Later {
            why: said,
            after: retry_after(response.headers()),
        },
        _ if status.is_server_error() => Verdict::Later {
            why: said,
            after: retry_after(response.headers()),
        },
        StatusCode::UNAUTHORIZED => setting("check authentication and tenant"),
        StatusCode::FORBIDDEN => setting("check authentication, tenant and rights"),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => setting("check the address"),
        _ if status.is_redirection() => match response.headers().get(header::LOCATION) {
            Some(to) => {
                let to = bounded(&String::from_utf8_lossy(to.as_bytes()));
                setting(&format!("check the address: it moved to {to}"))
            }
            None => setting("check the address"),
        },
        _ => setting("check the address and what is in between"),
    }
}

fn not_loki(response: &Response<Bytes>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE);
    let html = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    // What Go's server says to http where it speaks https.
    html || response.body().starts_with(b"Client sent an HTTP request")
}

fn words(body: &[u8], secrets: &[String]) -> String {
    let mut words = String::from_utf8_lossy(body).into_owned();
    for secret in secrets {
        words = words.replace(secret, "[secret]");
    }
    bounded(&words)
}

/// Text from outside for a log: short, in one line, and nothing that moves a
/// terminal's cursor or turns the direction of writing.
pub(super) fn bounded(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let safe = text
        .trim()
        .chars()
        .map(|c| if c == '\n' || c == '\t' { ' ' } else { c });
    safe.filter(|c| !c.is_control() && !turns(*c))
        .take(WORDS)
        .collect()
}

/// Seconds, or a date, which the receiver's own clock is asked about.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are longer than we wait.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let date = |text: &str| Some(SystemTime::from(date(text)?));
    let there = headers
        .get(header::DATE)
        .and_then(|text| date(text.to_str().ok()?));
    let now = there.unwrap_or_else(SystemTime::now);
    let wait = date(text)?.duration_since(now).unwrap_or_default();
    Some(wait.min(LONGEST))
}

fn date(text: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, headers: &[(&str, &str)], body: &str) -> Verdict {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        judge(&response.body(body).unwrap(), &["sesame".to_owned()])
    }

    fn after(headers: &[(&str, &str)]) -> Option<u64> {
        let Verdict::Later { after, .. } = judged(429, headers, "") else {
            panic!("{headers:?}");
        };
        after.map(|after| after.as_secs())
    }

    #[test]
    fn each_status_has_its_meaning() {
        assert_eq!(judged(204, &[], ""), Verdict::Taken);
        assert_eq!(judged(200, &[], ""), Verdict::Taken);
        for status in [400, 413, 422] {
            let why = format!("status {status}: too old");
            assert_eq!(judged(status, &[], "too old\n"), Verdict::Refused { why });
        }
        for status in [
            202, 301, 302, 401, 403, 404, 405, 408, 415, 418, 429, 500, 502, 503,
        ] {
            let verdict = judged(status, &[], "");
            assert!(
                matches!(verdict, Verdict::Later { .. }),
                "{status}: {verdict:?}"
            );
        }
        let html = [("content-type", "text/html; charset=utf-8")];
        for (status, headers, body) in [
            (200, &html[..], "<html>pay here</html>"),
            (
                400,
                &html[..],
                "<html>The plain HTTP request was sent to HTTPS port",
            ),
            (
                400,
                &[][..],
                "Client sent an HTTP request to an HTTPS server.\n",
            ),
        ] {
            let verdict = judged(status, headers, body);
            assert!(
                matches!(verdict, Verdict::Later { .. }),
                "{body}: {verdict:?}"
            );
        }
        // A proxy does know what is too large for it.
        assert!(matches!(judged(413, &html, ""), Verdict::Refused { .. }));
        let Verdict::Later { why, .. } = judged(302, &[("location", "/login")], "") else {
            panic!("a redirection");
        };
        assert_eq!(why, "status 302 (check the address: it moved to /login)");
    }

    #[test]
    fn words_are_short_harmless_and_without_secrets() {
        let words = format!("a\x1b[2J\nb\u{202e}\0 sesame {}", "é".repeat(1000));
        let Verdict::Refused { why } = judged(400, &[], &words) else {
            panic!("refused");
        };
        assert!(why.starts_with("status 400: a[2J b [secret] éé"), "{why}");
        assert_eq!(why.chars().count(), "status 400: ".len() + WORDS);
    }

    #[test]
    fn the_receiver_says_how_long_to_wait() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("retry-after", "7")]), Some(7));
        assert_eq!(after(&[("retry-after", "0")]), Some(0));
        assert_eq!(
            after(&[("retry-after", "99999999999999999999999")]),
            Some(300)
        );
        for odd in ["", "-1", "soon", "1.5", "7 s"] {
            assert_eq!(after(&[("retry-after", odd)]), None, "{odd}");
        }
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        for (at, seconds) in [("08:50:07", 30), ("08:00:00", 0), ("23:00:00", 300)] {
            let at = format!("Sun, 06 Nov 1994 {at} GMT");
            assert_eq!(after(&[date, ("retry-after", &at)]), Some(seconds));
        }
        // Long ago by our clock.
        assert_eq!(after(&[("retry-after", date.1)]), Some(0));
    }
}
