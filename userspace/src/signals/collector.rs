//! A module's slot, asked with a deadline. One that fails costs its own series,
//! and no others.

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

/// What a slot is asked for.
#[derive(Clone, Copy)]
enum Work {
    Drain,
    Families,
}

/// A slot that may not answer.
pub(super) struct Collector {
    name: &'static str,
    worker: Worker<Slot, Came>,
    known: Known,
    /// Events that came with work that was done too late.
    events: Vec<Event>,
    /// What it is asked for now, or was last.
    work: Work,
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
            work: Work::Drain,
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
                    "reading {} takes longer than [limits] scrape_deadline",
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
        self.work = Work::Drain;
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
        self.work = Work::Families;
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

    /// Waits for what was begun. Without it by then, or where it failed, it is
    /// left out.
    pub fn finish(&mut self, until: Instant) -> Vec<Family> {
        let Some(mut came) = self.worker.finish(until) else {
            return Vec::new();
        };
        self.events.append(&mut came.events);
        self.note(came.error.map(|error| format!("{error:#}")));
        came.families
    }

    /// Tells of an error once, and when it is over.
    fn note(&mut self, error: Option<String>) {
        let collector = self.name;
        let before = &mut self.errors[self.work as usize];
        match &error {
            Some(error) if before.as_ref() != Some(error) => {
                tracing::error!(collector, error, "cannot be read: its series are missing");
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
        sync::{
            Mutex,
            mpsc::{self, Receiver},
        },
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
        answer.send(()).unwrap();
        while !collector.state().answers {
            collector.begin_families(|_| true);
            std::thread::yield_now();
        }
        assert_eq!(collector.take_events().len(), 1);
    }
    /// A module that cannot be read as long as somebody wants.
    struct Failing(Arc<Mutex<bool>>);

    impl Failing {
        fn come_to<T>(&self, what: T) -> anyhow::Result<T> {
            let fails = *self.0.lock().unwrap();
            anyhow::ensure!(!fails, "on purpose");
            Ok(what)
        }
    }

    impl Module for Failing {
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
        fn drain(&mut self, _: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
            self.come_to(Vec::new())
        }
        fn families(&mut self, _: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
            self.come_to(Vec::new())
        }
        fn map_states(&self) -> Vec<MapState> {
            Vec::new()
        }
        fn losses(&self) -> Vec<(&'static str, u64)> {
            Vec::new()
        }
        fn folded(&self) -> Vec<(&'static str, u64)> {
            Vec::new()
        }
    }

    #[test]
    fn a_collector_that_fails_is_left_out_until_it_is_read_again() {
        let fails = Arc::new(Mutex::new(false));
        let wanted = [catalogue::find("zfs.op_latency").unwrap()];
        let rings = Arc::new(Rings::new().unwrap());
        let module = Box::new(Failing(fails.clone()));
        let slot = Slot::new(module, &wanted, &Options::default(), &rings);
        let mut collector = Collector::new(slot).unwrap();
        let cgroups = Arc::new(Cgroups::new(None));
        let drain = |collector: &mut Collector, fail| {
            *fails.lock().unwrap() = fail;
            collector.begin_drain(&cgroups);
            let families = collector.finish(Instant::now() + Duration::from_hours(24));
            assert_eq!(families, []);
            (collector.state().answers, collector.state().left_out)
        };
        assert_eq!(drain(&mut collector, false), (true, 0));
        assert_eq!(drain(&mut collector, true), (false, 1));
        assert_eq!(drain(&mut collector, true), (false, 2));
        assert_eq!(collector.error(), Some("on purpose"));
        // What was no signal before has its own reason still.
        assert!(collector.signals()[0].1.reason().is_some());
        assert_eq!(drain(&mut collector, false), (true, 2));
        assert_eq!(collector.error(), None);
    }
}
