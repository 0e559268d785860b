//! `/metrics` and `/healthz`.

use std::time::Instant;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use kldtrace_exporters::prometheus;

use super::Shared;
use crate::signals::reader::Reader;

/// What is answered there.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .with_state(shared)
}

async fn index() -> impl IntoResponse {
    const PAGE: &str = "<!doctype html><title>kldtrace</title>\
        <h1>kldtrace</h1><ul><li><a href=/metrics>metrics</a><li><a href=/healthz>health</a></ul>\n";
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

async fn metrics(State(shared): State<Shared>, headers: HeaderMap) -> Response {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    let format = prometheus::negotiate(accept);
    let body = shared
        .with(move |reader| {
            let began = Instant::now();
            let families = reader.families(|_| true)?;
            let body = prometheus::encode(format, &families);
            reader.scraped(began.elapsed());
            anyhow::Ok(body)
        })
        .await
        .and_then(|result| result);
    match body {
        Ok(body) => ([(header::CONTENT_TYPE, format.content_type())], body).into_response(),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &anyhow::Error) -> Response {
    tracing::error!(error = format!("{error:#}"), "cannot read the probes");
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response()
}
