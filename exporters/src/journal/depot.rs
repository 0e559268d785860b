//! From a batch of lines to the spool, and the place behind it.
//!
//! A batch is appended to the spool, the spool synced, and only then the place
//! behind the batch kept: whatever happens in between, lines come twice rather
//! than never.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    batch::Batch,
    counters::Counters,
    cursor::{Loaded, Place, Store},
    stage::Stage,
    trail::Trail,
};
use crate::{
    push::Trouble,
    spool::{self, Spool},
};

/// How long a disk is left alone that did not take something.
const AGAIN: Duration = Duration::from_secs(1);

/// Where lines wait for each other, and are handed over.
pub(super) struct Depot {
    pub(super) batch: Batch,
    spool: Spool,
    store: Store,
    /// The place behind what the spool has; `None`: it is kept.
    place: Option<Place>,
    counters: Arc<Counters>,
    spool_trouble: Trouble,
    place_trouble: Trouble,
}

impl Depot {
    pub(super) fn new(spool: Spool, store: Store, counters: Arc<Counters>) -> Self {
        Self {
            batch: Batch::default(),
            spool,
            store,
            place: None,
            counters,
            spool_trouble: Trouble::default(),
            place_trouble: Trouble::default(),
        }
    }

    /// The place that is kept.
    pub(super) fn load(&self) -> Loaded {
        self.store.load()
    }

    /// Keeps a place that no line is before.
    pub(super) fn place(&mut self, place: Place) {
        self.place = Some(place);
        self.keep();
    }

    /// Has the spool take the batch, however long that takes.
    pub(super) async fn commit(&mut self, stage: &mut Stage, trail: &Trail) {
        while let Err(error) = self.deposit(stage, trail) {
            self.counters.refused.fetch_add(1, Relaxed);
            if self.spool_trouble.fails(&error.to_string()).is_some() {
                tracing::error!(%error, "the spool takes no lines; the journal keeps them meanwhile");
            }
            tokio::time::sleep(AGAIN).await;
        }
        if self.spool_trouble.over().is_some() {
            tracing::info!("the spool takes lines again");
        }
    }

    /// Gives the batch to the spool, and keeps the place behind it: that of the
    /// last entry that was read.
    pub(super) fn deposit(&mut self, stage: &mut Stage, trail: &Trail) -> Result<(), spool::Error> {
        stage.left_out(&mut self.batch.parcel);
        let parcel = &self.batch.parcel;
        if !parcel.is_empty() {
            self.spool.append(&parcel.entries())?;
            self.counters.shipped.fetch_add(self.batch.lines, Relaxed);
        }
        if !self.batch.is_empty() {
            self.place = trail.last().cloned().map(Place::Behind);
            self.batch.clear();
        }
        self.keep();
        self.counters.behind.store(false, Relaxed);
        Ok(())
    }

    /// Keeps the place once the disk has all that is before it. If that fails,
    /// it is tried again with the next batch.
    fn keep(&mut self) {
        let Some(place) = &self.place else { return };
        let synced = self.spool.sync().map_err(|error| error.to_string());
        let kept = synced.and_then(|()| self.store.save(place).map_err(|error| error.to_string()));
        match kept {
            Ok(()) => {
                self.place = None;
                if self.place_trouble.over().is_some() {
                    tracing::info!("the place in the journal is kept again");
                }
            }
            Err(error) => {
                self.counters.unsaved.fetch_add(1, Relaxed);
                if self.place_trouble.fails(&error).is_some() {
                    tracing::error!(
                        error,
                        "the place in the journal cannot be kept: after a restart, lines come twice"
                    );
                }
            }
        }
    }
}
