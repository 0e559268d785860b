//! A module's slot, asked with a deadline.

use std::{sync::Arc, time::Instant};

use kldtrace_exporters::model::{Event, Family};

use super::{
    cgroups::Cgroups,
    module::Slot,
    node,
    own::{CollectorState, MapState},
    worker::Worker,
};
use crate::{
    catalogue::Signal,
    kernel::loader::{Availability, Loaded},
};

/// What work on a slot came to.
#[derive(Default)]
struct Came {
    events: Vec<Event>,
    families: Vec<Family>,
    error: Option<anyhow::Error>,
}

/// What was known of a slot before it was given away.
#[derive(Default)]
struct Known {
    losses: Vec<(&'static str, u64)>,
    folded: Vec<(&'static str, u64)>,
    signals: Vec<(&'static Signal, Availability)>,
}

/// A slot that may not answer.
pub(super) struct Collector {
    name: &'static str,
    worker: Worker<Slot, Came>,
    known: Known,
    /// Events that came with work that was done too late.
    events: Vec<Event>,
}

impl Collector {
    /// # Errors
    /// When there can be no thread.
    pub fn new(slot: Slot) -> std::io::Result<Self> {
        let name = slot.name();
        Ok(Self {
            name,
            worker: Worker::new(name, slot)?,
            known: Known::default(),
            events: Vec::new(),
        })
    }

    /// Whether it answers.
    pub fn state(&self) -> CollectorState {
        self.worker.state()
    }

    /// What is loaded; `None`: nothing, or it does not answer.
    pub fn loaded(&self) -> Option<&Loaded> {
        self.worker.here()?.module().loaded()
    }

    /// How full its maps are; nothing while it does not answer.
    pub fn map_states(&self) -> Vec<MapState> {
        let slot = self.worker.here();
        slot.map_or_else(Vec::new, |slot| slot.module().map_states())
    }

    /// What was lost; as it was last known while it does not answer, since
    /// sums must not go back.
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let slot = self.worker.here();
        slot.map_or_else(|| self.known.losses.clone(), |slot| slot.module().losses())
    }

    /// Label sets without series of their own.
    pub fn folded(&self) -> Vec<(&'static str, u64)> {
        let slot = self.worker.here();
        slot.map_or_else(|| self.known.folded.clone(), |slot| slot.module().folded())
    }

    /// What came of each signal that was asked for.
    pub fn signals(&self) -> Vec<(&'static Signal, Availability)> {
        match self.worker.here() {
            Some(slot) => slot.signals(),
            None => {
                let why = format!(
                    "reading {} takes longer than [limits] scrape_deadline",
                    self.name
                );
                let signals = self.known.signals.iter().map(|(signal, is)| {
                    let is = match is {
                        Availability::Available => Availability::Absent(why.clone()),
                        other => other.clone(),
                    };
                    (*signal, is)
                });
                signals.collect()
            }
        }
    }

    /// Begins to take in what came through the ring buffer.
    pub fn begin_drain(&mut self, cgroups: &Arc<Cgroups>) {
        self.remember();
        let cgroups = cgroups.clone();
        self.worker.start(move |slot| {
            slot.follow();
            match slot.drain(&|id| node::unit(&cgroups, id).0) {
                Ok(events) => Came {
                    events,
                    ..Came::default()
                },
                Err(error) => Came {
                    error: Some(error),
                    ..Came::default()
                },
            }
        });
    }

    /// Begins to read the families of those of its signals that are available
    /// and picked.
    pub fn begin_families(&mut self, picked: impl Fn(&Signal) -> bool) {
        self.remember();
        let Some(slot) = self.worker.here() else {
            return;
        };
        let signals = slot.available(picked);
        if signals.is_empty() {
            return;
        }
        self.worker
            .start(move |slot| match slot.families(&signals) {
                Ok(families) => Came {
                    families,
                    ..Came::default()
                },
                Err(error) => Came {
                    error: Some(error),
                    ..Came::default()
                },
            });
    }

    /// Waits for what was begun. Without it by then, it is left out.
    ///
    /// # Errors
    /// When the kernel refused a map.
    pub fn finish(&mut self, until: Instant) -> anyhow::Result<Vec<Family>> {
        let Some(mut came) = self.worker.finish(until) else {
            return Ok(Vec::new());
        };
        self.events.append(&mut came.events);
        came.error.map_or(Ok(came.families), Err)
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Takes back a slot that was away, and keeps what is known of it.
    fn remember(&mut self) {
        if let Some(mut late) = self.worker.late() {
            // Its families are of another scrape.
            self.events.append(&mut late.events);
        }
        if let Some(slot) = self.worker.here() {
            self.known.signals = slot.signals();
            self.known.folded = slot.module().folded();
            self.known.losses = slot.module().losses();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{self, Receiver},
        time::Duration,
    };

    use aya::maps::{MapData, RingBuf};

    use super::*;
    use crate::{
        catalogue,
        kernel::{
            loader::Options,
            object::{ObjectFile, ZFS},
        },
        signals::{module::Module, rings::Rings},
    };

    /// A module whose ring buffer takes as long as somebody wants.
    struct Hanging(Receiver<()>);

    impl Module for Hanging {
        fn object(&self) -> &'static ObjectFile {
            &ZFS
        }
        fn attach(&mut self, _: &[&'static Signal], _: &Options) -> anyhow::Result<()> {
            Ok(())
        }
        fn detach(&mut self) {}
        fn loaded(&self) -> Option<&Loaded> {
            None
        }
        fn loaded_mut(&mut self) -> Option<&mut Loaded> {
            None
        }
        fn ring(&self) -> Option<&RingBuf<MapData>> {
            None
        }
        fn drain(&mut self, unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
            self.0.recv()?;
            Ok(vec![Event {
                id: 0,
                time_ns: 0,
                subject: "zfs".into(),
                kind: "x".into(),
                labels: Vec::new(),
                fields: Vec::new(),
                message: unit(u64::MAX).to_string(),
            }])
        }
        fn families(&mut self, _: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
            Ok(Vec::new())
        }
        fn map_states(&self) -> Vec<MapState> {
            Vec::new()
        }
        fn losses(&self) -> Vec<(&'static str, u64)> {
            vec![("event", 3)]
        }
        fn folded(&self) -> Vec<(&'static str, u64)> {
            vec![("zfs", 2)]
        }
    }

    #[test]
    fn a_collector_that_hangs_is_left_out_and_nobody_waits_for_it_twice() {
        let (answer, hangs) = mpsc::channel();
        let wanted = [catalogue::find("zfs.op_latency").unwrap()];
        let rings = Arc::new(Rings::new().unwrap());
        let slot = Slot::new(
            Box::new(Hanging(hangs)),
            &wanted,
            &Options::default(),
            &rings,
        );
        let mut collector = Collector::new(slot).unwrap();
        let cgroups = Arc::new(Cgroups::new(None));
        let never = || Instant::now() + Duration::from_hours(24);

        answer.send(()).unwrap();
        collector.begin_drain(&cgroups);
        collector.finish(never()).unwrap();
        assert_eq!(collector.take_events().len(), 1);
        assert!(collector.state().answers);
        assert_eq!(collector.state().left_out, 0);

        collector.begin_drain(&cgroups);
        collector.finish(Instant::now()).unwrap();
        assert!(!collector.state().answers);
        for times in 2..5 {
            collector.begin_drain(&cgroups);
            collector.begin_families(|_| true);
            // It would wait for a day.
            assert_eq!(collector.finish(never()).unwrap(), []);
            assert_eq!(collector.state().left_out, times);
        }
        // What is known of it stays, so that no sum goes back.
        assert_eq!(collector.losses(), [("event", 3)]);
        assert_eq!(collector.folded(), [("zfs", 2)]);
        assert_eq!(collector.signals().len(), 1);
        assert!(collector.loaded().is_none());

        // It answers after all, and what it took in is not lost.
        answer.send(()).unwrap();
        while !collector.state().answers {
            collector.begin_families(|_| true);
            std::thread::yield_now();
        }
        assert_eq!(collector.take_events().len(), 1);
    }
}
