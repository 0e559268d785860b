//! The thread that writes the spool and pushes what is in it.

use std::{
    sync::{Arc, atomic::AtomicU64},
    thread::JoinHandle,
    time::Duration,
};

use anyhow::Context as _;
use kldtrace_exporters::{
    push::{Aside, Counters, Delivery, Destination, Settings, Trouble},
    spool::{self, Parcel, Reader, Spool},
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, LocalSet},
    time::MissedTickBehavior,
};

use super::{Destinations, Outbox, journal::Journal};
use crate::{config::Config, signals::pushing::Pushing};

/// How long destinations may go on when the daemon ends.
const GRACE: Duration = Duration::from_secs(2);
/// How long a disk is left alone that did not take something.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of each of the two files with what was refused.
const ASIDE: u64 = 4 << 20;

/// The running thread, and that of the journal before it.
pub struct Thread {
    stop: watch::Sender<bool>,
    push: JoinHandle<()>,
    journal: Option<Journal>,
}

impl Thread {
    /// Ends it: what is there is pushed for up to two seconds more. Everybody
    /// who has a part of the outbox must be gone.
    pub fn end(self) {
        if let Some(journal) = self.journal {
            journal.end();
        }
        self.stop.send_replace(true);
        if self.push.join().is_err() {
            tracing::error!("pushing ended by a fault of its own");
        }
    }
}

/// Opens the spool and starts to push.
///
/// # Errors
/// When the spool cannot be opened.
pub fn start(config: &Config, destinations: Destinations) -> anyhow::Result<(Outbox, Thread)> {
    let settings = spool::Settings {
        directory: config.spool.directory.clone(),
        bytes: config.spool.size,
        sync: config.spool.sync,
    };
    let lanes = destinations.lanes();
    let (spool, readers) = Spool::open(settings, &lanes).context("[spool]")?;
    let slots: Vec<_> = lanes
        .into_iter()
        .zip(readers)
        .map(|((name, _), reader)| Slot {
            name,
            reader,
            counters: Arc::default(),
        })
        .collect();
    let counted = slots.iter().map(|slot| (slot.name, slot.counters.clone()));
    let pushing = Arc::new(Pushing {
        spool,
        limit: config.spool.size,
        destinations: counted.collect(),
        missed: AtomicU64::new(0),
        journal: config.journal.enabled.then(Arc::default),
    });
    let journal = Journal::start(config, &pushing.spool, pushing.journal.as_ref())?;
    let aside = config.spool.directory.join("refused.jsonl");
    let (outbox, parcels) = Outbox::new(pushing.clone());
    let (stop, stopped) = watch::channel(false);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .thread_keep_alive(Duration::from_secs(2))
        .build()?;
    let work = async move {
        let mut deliveries = Deliveries {
            slots: slots.into_iter(),
            aside: Arc::new(Aside::new(aside, ASIDE)),
            stopped: stopped.clone(),
            tasks: JoinSet::new(),
        };
        deliveries.add(destinations.loki);
        deliveries.add(destinations.otlp);
        let sync = tokio::task::spawn_local(sync(pushing.spool.clone()));
        write(parcels, pushing, stopped).await;
        while deliveries.tasks.join_next().await.is_some() {}
        sync.abort();
    };
    let push = std::thread::Builder::new()
        .name("push".to_owned())
        .spawn(move || runtime.block_on(LocalSet::new().run_until(work)))
        .context("no thread for pushes")?;
    let thread = Thread {
        stop,
        push,
        journal,
    };
    Ok((outbox, thread))
}

/// What a destination reads and counts with.
struct Slot {
    name: &'static str,
    reader: Reader,
    counters: Arc<Counters>,
}

/// The deliveries that run, and the slots of those to come.
struct Deliveries {
    slots: std::vec::IntoIter<Slot>,
    aside: Arc<Aside>,
    stopped: watch::Receiver<bool>,
    tasks: JoinSet<()>,
}

impl Deliveries {
    /// Begins to deliver, if there is such a destination: in the order of
    /// [`Destinations::lanes`].
    fn add<D: Destination + 'static>(&mut self, destination: Option<(D, Settings)>) {
        let Some((destination, settings)) = destination else {
            return;
        };
        let slot = self.slots.next().expect("each destination has its lanes");
        let delivery = Delivery {
            name: slot.name,
            reader: slot.reader,
            destination,
            settings,
            counters: slot.counters,
            aside: self.aside.clone(),
        };
        let stopped = self.stopped.clone();
        self.tasks.spawn_local(delivery.run(stopped, GRACE));
    }
}

/// Puts parcels into the spool until nobody sends any more. What the disk does
/// not take is tried again: meanwhile the outbox fills, and its owner counts.
async fn write(
    mut parcels: mpsc::Receiver<Parcel>,
    pushing: Arc<Pushing>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut trouble = Trouble::default();
    while let Some(parcel) = parcels.recv().await {
        let entries = parcel.entries();
        loop {
            let Err(error) = pushing.spool.append(&entries) else {
                if trouble.over().is_some() {
                    tracing::info!("the spool takes entries again");
                }
                break;
            };
            if trouble.fails(&error.to_string()).is_some() {
                tracing::error!(%error, "the spool takes nothing; it is tried again each second");
            }
            // Parcels are smaller than that.
            let hopeless = matches!(error, spool::Error::TooLarge(_));
            let stop = stopped.wait_for(|stop| *stop);
            if hopeless || tokio::time::timeout(AGAIN, stop).await.is_ok() {
                let lost = entries.len() as u64;
                tracing::error!(%error, lost, "entries are lost");
                pushing.miss(lost);
                break;
            }
        }
    }
}

/// Has the disk take what was appended, as often as the settings want it.
async fn sync(spool: Spool) {
    let Some(every) = spool.sync_every() else {
        return;
    };
    let mut tick = tokio::time::interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tick.tick().await;
        let spool = spool.clone();
        let Ok(done) = tokio::task::spawn_blocking(move || spool.sync()).await else {
            return;
        };
        if let Err(error) = &done
            && !failing
        {
            tracing::error!(%error, "the disk does not take the spool");
        }
        failing = done.is_err();
    }
}
