//! Certificates that are read again when their files change.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use kldtrace_exporters::tls::{Refreshed, Server};
use tokio::time::MissedTickBehavior;

use crate::signals::serving::{Certificate, Serving};

/// How often the files are looked at: they are small, and a look costs less
/// than to be told of changes through every way of replacing a file.
const EVERY: Duration = Duration::from_secs(5);

/// The certificates of this daemon: the listener's, and those for pushes.
pub(super) fn certificates(
    listen: Option<&Arc<Server>>,
    pushes: Vec<Certificate>,
) -> Vec<Certificate> {
    let listen = listen.map(|server| Certificate {
        purpose: "listen",
        files: server.clone(),
    });
    listen.into_iter().chain(pushes).collect()
}

/// Looks at the files, again and again.
pub(super) async fn follow(serving: Arc<Serving>) -> anyhow::Result<()> {
    if serving.certificates.is_empty() {
        return Ok(());
    }
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let serving = serving.clone();
        // A file may lie on something that has to be waited for.
        tokio::task::spawn_blocking(move || serving.certificates.iter().for_each(look))
            .await
            .context("looking at certificates failed")?;
    }
}

/// Looks at the files without waiting for the next time.
pub(super) fn now(serving: &Arc<Serving>) {
    let serving = serving.clone();
    tokio::task::spawn_blocking(move || serving.certificates.iter().for_each(look));
}

fn look(certificate: &Certificate) {
    let purpose = certificate.purpose;
    match certificate.files.refresh() {
        Ok(Refreshed::Unchanged) => {}
        Ok(Refreshed::Renewed) => {
            let not_after = certificate.files.state().not_after;
            let until = not_after.and_then(|end| jiff::Timestamp::from_second(end).ok());
            let until = until.map_or_else(|| "unknown".to_owned(), |end| end.to_string());
            tracing::info!(purpose, until, "certificate renewed");
        }
        Err(error) => {
            tracing::error!(purpose, %error, "changed certificates cannot be used; the old stay");
        }
    }
}
