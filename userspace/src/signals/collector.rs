//! A module's slot, asked with a deadline. One that fails costs its own series,
//! and no others.

use std::{sync::Arc, time::Instant};

use kldtrace_exporters::model::{Event, Family};

use super::{
    cgroups::Cgroups,
    module::Slot,
    own::{CollectorState, MapState},
    worker::Worker,
};
use crate::{
    catalogue::Signal,
    kernel::loader::{Availability, Loaded},
};

/// What a slot is asked for.
#[derive(Clone, Copy)]
enum Work {
    Drain,
    Families,
}

/// What work on a slot came to.
struct Came {
    work: Work,
    events: Vec<Event>,
    families: Vec<Family>,
    error: Option<anyhow::Error>,
}

impl Came {
    fn new(work: Work, came: anyhow::Result<(Vec<Event>, Vec<Family>)>) -> Self {
        let (came, error) = match came {
            Ok(came) => (came, None),
            Err(error) => (Default::default(), Some(error)),
        };
        let (events, families) = came;
        Self {
            work,
            events,
            families,
            error,
        }
    }
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
    /// Why it failed the last time, by [`Work`].
    errors: [Option<String>; 2],
    /// How often it failed.
    failed: u64,
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
            errors: [None, None],
            failed: 0,
        })
    }

    /// Whether it answers, and not with an error.
    pub fn state(&self) -> CollectorState {
        let state = self.worker.state();
        CollectorState {
            answers: state.answers && self.error().is_none(),
            left_out: state.left_out + self.failed,
            ..state
        }
    }

    fn error(&self) -> Option<&str> {
        self.errors.iter().flatten().next().map(String::as_str)
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
        let (signals, why) = match (self.worker.here(), self.error()) {
            (Some(slot), None) => return slot.signals(),
            (Some(slot), Some(error)) => (slot.signals(), error.to_owned()),
            (None, _) => (
                self.known.signals.clone(),
                format!(
                    "reading {} takes longer than is waited for ([limits] scrape_deadline)",
                    self.name
                ),
            ),
        };
        let absent = |is| match is {
            Availability::Available => Availability::Absent(why.clone()),
            other => other,
        };
        let signals = signals.into_iter();
        signals.map(|(signal, is)| (signal, absent(is))).collect()
    }

    /// Begins to take in what came through the ring buffer.
    pub fn begin_drain(&mut self, cgroups: &Arc<Cgroups>) {
        self.remember();
        let cgroups = cgroups.clone();
        self.worker.start(move |slot| {
            slot.follow();
            let events = slot.drain(&|id| cgroups.unit(id).0);
            Came::new(Work::Drain, events.map(|events| (events, Vec::new())))
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
        self.worker.start(move |slot| {
            let families = slot.families(&signals);
            Came::new(
                Work::Families,
                families.map(|families| (Vec::new(), families)),
            )
        });
    }

    /// Waits for what was begun. Without it by then, or where it failed, it is
    /// left out.
    pub fn finish(&mut self, until: Instant) -> Vec<Family> {
        let came = self.worker.finish(until);
        came.map_or_else(Vec::new, |came| self.take(came))
    }

    /// Takes in what came of work; its families are for whoever asked in time.
    fn take(&mut self, mut came: Came) -> Vec<Family> {
        self.events.append(&mut came.events);
        self.note(came.work, came.error.map(|error| format!("{error:#}")));
        came.families
    }

    /// Tells of an error once, and when it is over.
    fn note(&mut self, work: Work, error: Option<String>) {
        let collector = self.name;
        let before = &mut self.errors[work as usize];
        match &error {
            Some(error) if before.as_ref() != Some(error) => {
                tracing::error!(
                    collector,
                    error,
                    "cannot be read: series or events are missing"
                );
            }
            None if before.is_some() => tracing::info!(collector, "is read again"),
            _ => {}
        }
        self.failed += u64::from(error.is_some());
        *before = error;
    }

    /// The events since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Takes back a slot that was away, and keeps what is known of it.
    fn remember(&mut self) {
        if let Some(late) = self.worker.late() {
            // Its families are of another scrape.
            self.take(late);
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
        sync::mpsc::{self, Receiver, Sender},
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

    /// A module of which somebody says what comes of reading its ring buffer, and
    /// when.
    struct Made(Receiver<anyhow::Result<()>>);

    impl Made {
        fn collector() -> (Sender<anyhow::Result<()>>, Collector) {
            let (answer, answers) = mpsc::channel();
            let wanted = [catalogue::find("zfs.op_latency").unwrap()];
            let rings = Arc::new(Rings::new().unwrap());
            let made = Box::new(Self(answers));
            let slot = Slot::new(made, &wanted, &Options::default(), &rings);
            (answer, Collector::new(slot).unwrap())
        }
    }

    impl Module for Made {
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
            self.0.recv()??;
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
        let (answer, mut collector) = Made::collector();
        let cgroups = Arc::new(Cgroups::new(None));
        let never = || Instant::now() + Duration::from_hours(24);

        answer.send(Ok(())).unwrap();
        collector.begin_drain(&cgroups);
        collector.finish(never());
        assert_eq!(collector.take_events().len(), 1);
        assert!(collector.state().answers);
        assert_eq!(collector.state().left_out, 0);

        collector.begin_drain(&cgroups);
        collector.finish(Instant::now());
        assert!(!collector.state().answers);
        for times in 2..5 {
            collector.begin_drain(&cgroups);
            collector.begin_families(|_| true);
            // It would wait for a day.
            assert_eq!(collector.finish(never()), []);
            assert_eq!(collector.state().left_out, times);
        }
        // What is known of it stays, so that no sum goes back.
        assert_eq!(collector.losses(), [("event", 3)]);
        assert_eq!(collector.folded(), [("zfs", 2)]);
        assert_eq!(collector.signals().len(), 1);
        assert!(collector.loaded().is_none());

        // It answers after all, and what it took in is not lost.
        answer.send(Ok(())).unwrap();
        while !collector.state().answers {
            collector.begin_families(|_| true);
            std::thread::yield_now();
        }
        assert_eq!(collector.take_events().len(), 1);
    }

    #[test]
    fn a_collector_that_fails_is_left_out_until_it_is_read_again() {
        let (answer, mut collector) = Made::collector();
        let cgroups = Arc::new(Cgroups::new(None));
        let drain = |collector: &mut Collector, fails: bool| {
            let comes = if fails {
                Err(anyhow::anyhow!("on purpose"))
            } else {
                Ok(())
            };
            answer.send(comes).unwrap();
            collector.begin_drain(&cgroups);
            collector.finish(Instant::now() + Duration::from_hours(24));
            (collector.state().answers, collector.state().left_out)
        };
        assert_eq!(drain(&mut collector, false), (true, 0));
        assert_eq!(drain(&mut collector, true), (false, 1));
        assert_eq!(drain(&mut collector, true), (false, 2));
        assert_eq!(collector.error(), Some("on purpose"));
        assert_eq!(drain(&mut collector, false), (true, 2));
        assert_eq!(collector.error(), None);
    }

    /// An error is told as well that comes when nobody waits any more.
    #[test]
    fn a_collector_that_fails_late_has_failed() {
        let (answer, mut collector) = Made::collector();
        let cgroups = Arc::new(Cgroups::new(None));
        collector.begin_drain(&cgroups);
        collector.finish(Instant::now());
        answer.send(Err(anyhow::anyhow!("late"))).unwrap();
        while collector.error().is_none() {
            collector.begin_families(|_| false);
            std::thread::yield_now();
        }
        assert_eq!(collector.error(), Some("late"));
        assert!(!collector.state().answers);
    }
}
