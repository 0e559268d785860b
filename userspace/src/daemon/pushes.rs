//! What the daemon pushes: events as they come, and metrics at intervals.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::MissedTickBehavior;

use super::Shared;
use crate::{
    config::{Config, OtlpSignal},
    push::{self, Destinations, Outbox, Thread},
    signals::{events::Store, pushing::Pushing, serving::Certificate},
};

/// The pushes of this daemon, while there are any.
#[derive(Default)]
pub(super) struct Pushes(Mutex<Option<Running>>);

struct Running {
    outbox: Outbox,
    thread: Thread,
}

impl Pushes {
    /// Starts what the configuration wants, and hands out our certificates for
    /// it.
    pub(super) fn start(config: &Config) -> anyhow::Result<(Self, Vec<Certificate>)> {
        let mut destinations = Destinations::new(config)?;
        if destinations.is_empty() {
            return Ok((Self::default(), Vec::new()));
        }
        let certificates = std::mem::take(&mut destinations.certificates);
        for (name, url) in [("loki", &config.loki.url), ("otlp", &config.otlp.url)] {
            if let Some(url) = url {
                tracing::info!(destination = name, url, "pushing");
            }
        }
        let (outbox, thread) = push::start(config, destinations)?;
        let running = Running { outbox, thread };
        Ok((Self(Mutex::new(Some(running))), certificates))
    }

    /// What has come of them.
    pub(super) fn state(&self) -> Option<Arc<Pushing>> {
        let running = self.running();
        Some(running.as_ref()?.outbox.pushing().clone())
    }

    /// Hands over new events.
    pub(super) fn events(&self, events: &Store) {
        if let Some(running) = &mut *self.running() {
            running.outbox.take(events);
        }
    }

    /// Lets what is there be pushed for a moment more, and waits for it. What
    /// comes later is not pushed.
    pub(super) fn end(&self) {
        if let Some(running) = self.running().take() {
            drop(running.outbox);
            running.thread.end();
        }
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // It holds numbers that are right at any time.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads all metrics at intervals and hands them over, if the configuration
/// wants that.
pub(super) async fn measure(
    shared: Shared,
    pushes: Arc<Pushes>,
    config: Config,
) -> anyhow::Result<()> {
    let wanted = config.otlp.signals.contains(&OtlpSignal::Metrics);
    let running = pushes.running().as_ref().map(|one| one.outbox.sender());
    let (Some(parcels), true) = (running, wanted && config.otlp.url.is_some()) else {
        return Ok(());
    };
    let config = Arc::new(config);
    let mut tick = tokio::time::interval(config.otlp.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, and would tell nothing.
    tick.tick().await;
    loop {
        tick.tick().await;
        let read = shared
            .with(|reader| anyhow::Ok((reader.exported(Duration::MAX)?, reader.began())))
            .await?;
        let (families, began) = match read {
            Ok(read) => read,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "metrics cannot be read, and are not pushed");
                continue;
            }
        };
        // Without the reader, which a scrape may wait for, and off the event
        // loop.
        let settings = config.clone();
        let encode = move || push::metrics(&settings, &families, began);
        for parcel in tokio::task::spawn_blocking(encode).await? {
            // Waits while the disk takes nothing: the next reading has all that
            // is missed meanwhile, as counters only grow.
            if parcels.send(parcel).await.is_err() {
                return Ok(());
            }
        }
    }
}
