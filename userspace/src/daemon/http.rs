//! What scrapers are answered: `/metrics`, `/healthz`, `/targets`.

use std::{sync::Arc, time::Instant};

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
pub fn router(shared: Shared, fleet: Fleet) -> Router {
    let fleet = Router::new()
        .route("/targets", get(targets))
        .with_state(Arc::new(fleet));
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
async fn targets(State(fleet): State<Arc<Fleet>>) -> Json<Vec<TargetGroup>> {
    Json(fleet.targets())
}

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let format = prometheus::negotiate(list(&headers, &header::ACCEPT).as_deref());
    let encoding = Encoding::negotiate(list(&headers, &header::ACCEPT_ENCODING).as_deref());
    let body = shared
        .with(move |reader| {
            let began = Instant::now();
            let families = reader.families(|_| true)?;
            let body = prometheus::encode(format, &families);
            let compressed = encoding.compress(&body);
            reader.scraped(began.elapsed());
            anyhow::Ok((body, compressed))
        })
        .await
        .and_then(|result| result);
    let (body, compressed) = match body {
        Ok(bodies) => bodies,
        Err(error) => return unavailable(&error),
    };
    let name = encoding.name().filter(|_| compressed.is_some());
    let mut response = Response::new(Body::from(compressed.unwrap_or(body)));
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_static(format.content_type());
    headers.insert(header::CONTENT_TYPE, content_type);
    // A cache in between must not give one scraper the other's.
    let vary = HeaderValue::from_static("accept, accept-encoding");
    headers.insert(header::VARY, vary);
    if let Some(name) = name {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    }
    response
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
