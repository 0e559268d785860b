//! What scrapers are answered: `/metrics`, `/healthz`, `/targets`.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use kldtrace_exporters::prometheus::{self, Encoding};

use super::Shared;
use crate::{
    fleet::{Fleet, TargetGroup},
    signals::reader::Reader,
};

/// What is answered there.
pub fn router(shared: Shared, fleet: Arc<RwLock<Fleet>>) -> Router {
    let fleet = Router::new()
        .route("/targets", get(targets))
        .with_state(fleet);
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(shared)
        .merge(fleet)
}

async fn index() -> impl IntoResponse {
    const PAGE: &str = "<!doctype html><title>kldtrace</title>\
        <h1>kldtrace</h1><ul><li><a href=/metrics>metrics</a><li><a href=/healthz>health</a>\
        <li><a href=/targets>targets</a></ul>\n";
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], PAGE)
}

async fn health(State(shared): State<Shared>) -> Response {
    // Alive is who can read the probes, not who can answer.
    let attached = |reader: &mut Reader| {
        let objects = reader.loaded();
        objects
            .iter()
            .map(|loaded| loaded.attached.len())
            .sum::<usize>()
    };
    match shared.with(attached).await {
        Ok(programs) => format!("ok: {programs} programs attached\n").into_response(),
        Err(error) => unavailable(&error),
    }
}

/// For Prometheus' HTTP service discovery.
async fn targets(State(fleet): State<Arc<RwLock<Fleet>>>) -> Json<Vec<TargetGroup>> {
    Json(
        fleet
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .targets(),
    )
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let format = prometheus::negotiate(list(&headers, &header::ACCEPT).as_deref());
    let encoding = Encoding::negotiate(list(&headers, &header::ACCEPT_ENCODING).as_deref());
    let patience = patience(headers.get(&TIMEOUT));
    let body = shared
        .with(move |reader| {
            let began = Instant::now();
            let families = reader.exported(patience)?;
            let body = prometheus::Body::new(format, encoding, &families)?;
            reader.scraped(began.elapsed());
            anyhow::Ok(body)
        })
        .await
        .and_then(|result| result);
    let prometheus::Body { bytes, encoding } = match body {
        Ok(body) => body,
        Err(error) => return unavailable(&error),
    };
    let mut response = Response::new(Body::from(bytes));
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_static(format.content_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    // A cache in between must not give one scraper the other's.
    let vary = HeaderValue::from_static("accept, accept-encoding");
    headers.insert(header::VARY, vary);
    if let Some(name) = encoding.name() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
}

/// Prometheus says with each scrape how many seconds it will wait for it.
const TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// How long collectors have: three quarters of what the scraper waits, so that
/// the rest is there in time. What cannot be understood limits nothing.
fn patience(header: Option<&HeaderValue>) -> Duration {
    let seconds = header
        .and_then(|seconds| seconds.to_str().ok())
        .and_then(|seconds| seconds.trim().parse::<f64>().ok())
        .filter(|seconds| *seconds > 0.0);
    let patience = seconds.and_then(|s| Duration::try_from_secs_f64(s * 0.75).ok());
    patience.unwrap_or(Duration::MAX)
}

/// A header that is a list, which may stand on several lines (RFC 9110, 5.3).
fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let lines = headers.get_all(name).iter();
    let lines: Vec<_> = lines.filter_map(|line| line.to_str().ok()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

fn unavailable(error: &anyhow::Error) -> Response {
    tracing::error!(error = format!("{error:#}"), "cannot read the probes");
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Duration {
        patience(HeaderValue::from_str(text).ok().as_ref())
    }

    #[test]
    fn a_scraper_gets_most_of_the_time_that_it_waits() {
        assert_eq!(of("10"), Duration::from_millis(7500));
        assert_eq!(of(" 0.200000 "), Duration::from_millis(150));
        for nothing in ["", "0", "-1", "nan", "inf", "1e999", "1e300", "ten"] {
            assert_eq!(of(nothing), Duration::MAX, "{nothing}");
        }
        assert_eq!(patience(None), Duration::MAX);
    }

    #[test]
    fn lists_may_stand_on_several_lines() {
        let mut headers = HeaderMap::new();
        assert_eq!(list(&headers, &header::ACCEPT), None);
        for line in ["text/plain", "a/b;q=0.1"] {
            headers.append(header::ACCEPT, HeaderValue::from_static(line));
        }
        let odd = HeaderValue::from_bytes(b"\xff").unwrap();
        headers.append(header::ACCEPT, odd);
        let list = list(&headers, &header::ACCEPT);
        assert_eq!(list.as_deref(), Some("text/plain,a/b;q=0.1"));
    }

    proptest! {
        #[test]
        fn no_timeout_makes_it_panic(bytes: Vec<u8>, number: f64) {
            patience(HeaderValue::from_bytes(&bytes).ok().as_ref());
            of(&number.to_string());
        }
    }
}
