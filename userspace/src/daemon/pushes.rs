//! What the daemon pushes: events as they come, and metrics at intervals.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc::error::TrySendError, time::MissedTickBehavior};

use super::Shared;
use crate::{
    config::{Config, OtlpSignal},
    push::{self, Destinations, Outbox, Thread},
    signals::{events::Store, pushing::Pushing, serving::Certificate},
};

/// The pushes of this daemon, if there are any.
#[derive(Default)]
pub(super) struct Pushes(Option<Running>);

struct Running {
    outbox: Mutex<Outbox>,
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
        let running = Running {
            outbox: Mutex::new(outbox),
            thread,
        };
        Ok((Self(Some(running)), certificates))
    }

    /// What has come of them.
    pub(super) fn state(&self) -> Option<Arc<Pushing>> {
        let running = self.0.as_ref()?;
        Some(running.outbox().pushing().clone())
    }

    /// Hands over new events.
    pub(super) fn events(&self, events: &Store) {
        if let Some(running) = &self.0 {
            running.outbox().take(events);
        }
    }

    /// Lets what is there be pushed for a moment more. Waits for it.
    pub(super) fn end(self) {
        if let Some(running) = self.0 {
            drop(running.outbox);
            running.thread.end();
        }
    }
}

impl Running {
    fn outbox(&self) -> std::sync::MutexGuard<'_, Outbox> {
        // It holds numbers that are right at any time.
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads all metrics at intervals and hands them over, if the configuration
/// wants that. Counters began when this is called.
pub(super) async fn measure(
    shared: Shared,
    pushes: Arc<Pushes>,
    config: Config,
) -> anyhow::Result<()> {
    let wanted = config.otlp.signals.contains(&OtlpSignal::Metrics);
    let (Some(running), true) = (&pushes.0, wanted && config.otlp.url.is_some()) else {
        return Ok(());
    };
    let start = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let start = start.unwrap_or(Duration::ZERO).as_nanos() as u64;
    let parcels = running.outbox().sender();
    let mut tick = tokio::time::interval(config.otlp.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, and would tell nothing.
    tick.tick().await;
    loop {
        tick.tick().await;
        let settings = config.clone();
        let read = shared.with(move |reader| {
            let families = reader.families(|_| true)?;
            anyhow::Ok(push::metrics(&settings, &families, start))
        });
        match read.await? {
            Ok(parcel) => match parcels.try_send(parcel) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    tracing::warn!(
                        "no room for metrics at the spool: those of a later time will do"
                    );
                }
                Err(TrySendError::Closed(_)) => return Ok(()),
            },
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "metrics cannot be read, and are not pushed");
            }
        }
    }
}
