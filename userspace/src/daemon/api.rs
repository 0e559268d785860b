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

#[cfg(test)]
mod tests {
    use axum::http::Uri;
    use proptest::prelude::*;

    use super::*;

    fn since(query: &str) -> Option<Since> {
        let uri: Uri = format!("/v1/events?{query}").parse().ok()?;
        Query::<Since>::try_from_uri(&uri).ok().map(|query| query.0)
    }

    #[test]
    fn queries_are_read_as_written() {
        let query = since("subject=zfs&after=18446744073709551615&limit=0").unwrap();
        assert_eq!(query.subject.as_deref(), Some("zfs"));
        assert_eq!((query.after, query.limit), (Some(u64::MAX), Some(0)));
        for refused in [
            "after=-1",
            "after=18446744073709551616",
            "limit=x",
            "after=1&after=2",
        ] {
            assert!(since(refused).is_none(), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_query_makes_it_panic(
            query in r"((subject|after|limit|x)?=?[-+%&=0-9a-zA-Z./?]{0,12}&?){0,6}",
        ) {
            let _ = since(&query);
            if let Ok(uri) = format!("/v1/families?{query}").parse::<Uri>() {
                let _ = Query::<Which>::try_from_uri(&uri);
            }
        }

        #[test]
        fn a_subject_comes_back_whatever_it_is(subject: String, after: u64) {
            let bytes = subject.bytes().map(|byte| format!("%{byte:02X}"));
            let escaped: String = bytes.collect();
            let read = since(&format!("after={after}&subject={escaped}")).unwrap();
            prop_assert_eq!(read.subject, Some(subject));
            prop_assert_eq!(read.after, Some(after));
        }
    }
}
