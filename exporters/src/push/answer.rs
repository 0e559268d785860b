//! What all receivers' answers have in common: words, and when to come again.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, header};

/// Most characters of a receiver's words that are repeated.
const WORDS: usize = 300;
/// Longest that a receiver may ask us to wait.
const LONGEST: Duration = Duration::from_mins(5);

/// Text from outside for a log: short, in one line, and nothing that moves a
/// terminal's cursor or turns the direction of writing.
pub(crate) fn words(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let safe = text
        .trim()
        .chars()
        .map(|c| if c == '\n' || c == '\t' { ' ' } else { c });
    safe.filter(|c| !c.is_control() && !turns(*c))
        .take(WORDS)
        .collect()
}

/// The same of text that may repeat our secrets.
pub(crate) fn words_without(secrets: &[String], text: &str) -> String {
    let hidden = secrets.iter().fold(text.to_owned(), |text, secret| {
        text.replace(secret, "[secret]")
    });
    words(&hidden)
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds, or a date, which the receiver's
/// own clock is asked about.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are longer than we wait.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let there = headers
        .get(header::DATE)
        .and_then(|text| date(text.to_str().ok()?));
    let now = there.unwrap_or_else(SystemTime::now);
    let wait = date(text)?.duration_since(now).unwrap_or_default();
    Some(wait.min(LONGEST))
}

/// Whether a web server or proxy refuses, and not the receiver behind it: it
/// cannot know what is wrong with an entry, and everything would be set aside
/// for its sake.
pub(crate) fn of_web_server(headers: &HeaderMap, body: &[u8]) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    let html = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    // What Go's server says to http where it speaks https.
    html || body.starts_with(b"Client sent an HTTP request")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(headers: &[(&'static str, &str)]) -> Option<u64> {
        let headers = headers.iter();
        let headers = headers.map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, value.parse().unwrap())
        });
        retry_after(&headers.collect()).map(|after| after.as_secs())
    }

    #[test]
    fn words_are_few_and_harmless() {
        assert_eq!(words("  a\r\n\u{1b}[2Jb\u{202e}c\0"), "a [2Jbc");
        assert_eq!(words(&"é".repeat(1000)).chars().count(), WORDS);
    }

    #[test]
    fn the_receiver_says_how_long_to_wait() {
        assert_eq!(after(&[]), None);
        assert_eq!(after(&[("retry-after", " 7 ")]), Some(7));
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
