//! What an answer of Loki, or of whatever answers in its place, means.

use bytes::Bytes;
use http::{Response, StatusCode, header};

use crate::push::{
    Verdict,
    answer::{of_web_server, retry_after, words, words_without},
};

/// Judges an answer; `secrets` are not repeated.
pub(crate) fn judge(response: &Response<Bytes>, secrets: &[String]) -> Verdict {
    let status = response.status();
    let body = words_without(secrets, &String::from_utf8_lossy(response.body()));
    let said = if body.is_empty() {
        format!("status {}", status.as_u16())
    } else {
        format!("status {}: {body}", status.as_u16())
    };
    let setting = |what: &str| Verdict::Later {
        why: format!("{said} ({what})"),
        after: None,
    };
    match status {
        StatusCode::NO_CONTENT => Verdict::Taken,
        StatusCode::OK if response.body().is_empty() => Verdict::Taken,
        _ if status.is_success() => setting("not Loki's answer: is something in between?"),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
            if of_web_server(response.headers(), response.body()) =>
        {
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
                let to = words(&String::from_utf8_lossy(to.as_bytes()));
                setting(&format!("check the address: it moved to {to}"))
            }
            None => setting("check the address"),
        },
        _ => setting("check the address and what is in between"),
    }
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
        assert_eq!(why.chars().count(), "status 400: ".len() + 300);
    }
}
