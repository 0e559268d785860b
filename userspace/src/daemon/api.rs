//! The Unix socket's API: what the tool asks a running daemon.

use std::time::Duration;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    routing::get,
};
use kldtrace_exporters::model::Family;
use serde::Deserialize;

use super::Shared;
use crate::{
    catalogue::{Signal, Subject},
    doctor::Report,
    signals::{
        events::{Page, Query as Wanted},
        own,
    },
};

/// What is answered there.
pub fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/families", get(families))
        .route("/v1/events", get(events))
        .route("/v1/doctor", get(doctor))
        .with_state(shared)
}

type Failure = (StatusCode, String);

fn failure(error: &anyhow::Error) -> Failure {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}"))
}

#[derive(Deserialize)]
struct Which {
    /// A subject's name; without it, all.
    subject: Option<String>,
}

async fn families(
    State(shared): State<Shared>,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Family>>, Failure> {
    let wanted = move |signal: &Signal| {
        which
            .subject
            .as_deref()
            .is_none_or(|subject| subject == signal.subject.as_str())
    };
    let families = shared
        .with(move |reader| reader.families(wanted))
        .await
        .and_then(|result| result);
    families.map(Json).map_err(|error| failure(&error))
}

/// Events in an answer, where nobody says how many.
const EVENTS: usize = 100;

#[derive(Deserialize)]
struct Since {
    /// A subject's name; without it, all.
    subject: Option<String>,
    /// Number of the last event that is known; without it, the newest are
    /// wanted.
    after: Option<u64>,
    limit: Option<usize>,
}

async fn events(
    State(shared): State<Shared>,
    Query(which): Query<Since>,
) -> Result<Json<Page>, Failure> {
    let known = |name: &str| Subject::ALL.into_iter().any(|one| one.as_str() == name);
    if let Some(subject) = which.subject.as_deref().filter(|name| !known(name)) {
        return Err((
            StatusCode::BAD_REQUEST,
            format!("unknown subject {subject:?}"),
        ));
    }
    let wanted = Wanted {
        subject: which.subject,
        after: which.after,
        limit: which.limit.unwrap_or(EVENTS),
    };
    let page = shared
        .with(move |reader| {
            reader.drain()?;
            Ok(reader.events().page(&wanted))
        })
        .await
        .and_then(|result| result);
    page.map(Json).map_err(|error| failure(&error))
}

/// How long `doctor` measures.
pub const WINDOW: Duration = Duration::from_secs(1);

async fn doctor(State(shared): State<Shared>) -> Result<Json<Report>, Failure> {
    let report = shared
        .with(|reader| {
            reader.stats_are(true);
            let report = Report::make(reader, &own::kernel_release(), WINDOW);
            reader.stats_are(false);
            report
        })
        .await;
    report.map(Json).map_err(|error| failure(&error))
}
