//! The whole way of an event: spool, delivery, receiver.

use std::{sync::Arc, time::Duration};

use kldtrace_exporters::{
    loki::Loki,
    push::{self, Aside, Counters, Delivery, Lane},
    spool::{self, Spool, Standing},
};
use tokio::{sync::watch, task::JoinHandle};

use super::{bytes, double::Stored, now, slow};

pub struct Way {
    pub counters: Arc<Counters>,
    spool: Spool,
    appended: u64,
    task: JoinHandle<()>,
    _stop: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

impl Way {
    /// To a receiver that is there or not.
    pub fn to(loki: Loki) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let wanted = spool::Settings {
            directory: directory.path().to_owned(),
            bytes: 64 << 20,
            sync: None,
        };
        let (spool, readers) = Spool::open(wanted, &[("loki", &[Lane::Events])]).unwrap();
        let counters = Arc::new(Counters::default());
        let delivery = Delivery {
            name: "loki",
            reader: readers.into_iter().next().unwrap(),
            destination: loki,
            settings: push::Settings {
                bytes: 256 << 10,
                age: Duration::from_millis(100),
                longest_wait: Duration::from_secs(1),
            },
            counters: counters.clone(),
            aside: Arc::new(Aside::new(directory.path().join("refused.jsonl"), 1 << 20)),
        };
        let (stop, stopped) = watch::channel(false);
        Self {
            counters,
            spool,
            appended: 0,
            task: tokio::spawn(delivery.run(stopped, Duration::ZERO)),
            _stop: stop,
            _directory: directory,
        }
    }

    /// How many events went in.
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// Appends events until there are `due` of them; each has its number as
    /// its identity.
    pub fn append_until(&mut self, due: u64) {
        let records: Vec<_> = (self.appended..due)
            .map(|id| bytes(&slow(now(), id)))
            .collect();
        let entries: Vec<_> = records.iter().map(|one| (Lane::Events, &one[..])).collect();
        self.spool.append(&entries).unwrap();
        self.appended = due;
    }

    fn standing(&self) -> Standing {
        self.spool.statistics().readers[0].1
    }

    /// Waits until all that went in is taken, and asserts that nothing was
    /// lost or refused.
    pub async fn emptied(self) {
        while self.standing().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.task.abort();
        assert_eq!((self.standing().dropped, self.standing().damaged), (0, 0));
        let counts = self.counters.read();
        assert_eq!((counts.taken, counts.refused), (self.appended, 0));
    }
}

/// Asserts that the events up to `wanted` all arrived, in their order; how
/// many came again.
pub fn again<'a>(stored: impl Iterator<Item = &'a Stored>, wanted: u64) -> u64 {
    let (mut next, mut again) = (0, 0);
    for entry in stored {
        let id: u64 = entry.metadata["event_id"].parse().unwrap();
        if id < next {
            again += 1;
            continue;
        }
        assert_eq!(id, next);
        next += 1;
    }
    assert_eq!(next, wanted);
    again
}
