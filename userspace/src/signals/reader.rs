//! The reader: owns what is loaded, and turns it into families when asked.

mod facts;

use std::{
    io,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use kldtrace_abi::histogram::Histogram;
use kldtrace_exporters::model::{Event, Family};

use super::{
    Labels, collector::Collector, digests::Digests, events::Store, exemplars, families::from_facts,
    module::Slot, node::Node, own, rings::Rings, serving::Serving,
};
use crate::{
    catalogue::{Numbers, Signal},
    config::{Config, Objectives},
    kernel::{
        loader::{Availability, Loaded, Options},
        object::NODE,
    },
};

/// Events that are kept unless somebody says otherwise.
const EVENTS: usize = 1000;
/// How long a module is waited for unless somebody says otherwise.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads what the probes count.
pub struct Reader {
    node: Node,
    modules: Vec<Collector>,
    /// How long a reading waits for a module.
    patience: Duration,
    rings: Arc<Rings>,
    events: Store,
    digests: Digests,
    stats_time: Duration,
    stats_since: Option<Instant>,
    name: Arc<str>,
    scrapes: Box<Histogram>,
    kernel: Arc<str>,
    serving: Arc<Serving>,
    began: SystemTime,
}

impl Reader {
    /// Loads and attaches what is wanted.
    ///
    /// # Errors
    /// What [`crate::kernel::loader::load`] says.
    pub fn attach(
        wanted: &[&'static Signal],
        options: &Options,
        labels: &Labels,
    ) -> anyhow::Result<Self> {
        let of_node: Vec<_> = wanted
            .iter()
            .filter(|signal| std::ptr::eq(signal.subject.object(), &raw const NODE))
            .copied()
            .collect();
        let node = Node::attach(&of_node, options, labels.series)?;
        let rings = Rings::new()
            .map(Arc::new)
            .context("cannot wait for events")?;
        rings.add(node.ring());
        let modules = super::modules(labels);
        Ok(Self {
            node,
            modules: modules
                .into_iter()
                .map(|module| Collector::new(Slot::new(module, wanted, options, &rings)))
                .collect::<Result<_, _>>()
                .context("no thread for a collector")?,
            patience: PATIENCE,
            rings,
            events: Store::new(EVENTS),
            digests: Digests::new(Config::default().objectives),
            stats_time: Duration::ZERO,
            stats_since: None,
            name: "".into(),
            scrapes: Box::new(Histogram::EMPTY),
            kernel: own::kernel_release(),
            serving: Arc::default(),
            began: SystemTime::now(),
        })
    }

    /// What is loaded, an object after the other.
    pub fn loaded(&self) -> Vec<&Loaded> {
        let modules = self.modules.iter();
        let modules = modules.filter_map(Collector::loaded);
        [self.node.loaded()].into_iter().chain(modules).collect()
    }

    /// What came of each signal that was asked for, in the catalogue's order.
    pub fn signals(&self) -> Vec<(&'static Signal, Availability)> {
        let mut signals = self.node.loaded().signals.clone();
        signals.extend(self.modules.iter().flat_map(Collector::signals));
        signals.sort_by_key(|(signal, _)| signal.subject);
        signals
    }

    /// Whether a signal is measured.
    pub fn has(&self, name: &str) -> bool {
        self.signals()
            .iter()
            .any(|(signal, is)| signal.name == name && *is == Availability::Available)
    }

    /// A descriptor that is readable when there are events, also those of
    /// modules that come later.
    ///
    /// # Errors
    /// When there are too many descriptors.
    pub fn events_fd(&self) -> io::Result<OwnedFd> {
        self.rings.descriptor()
    }

    /// Takes in the events that are there, and follows the coming and going
    /// of modules.
    ///
    /// # Errors
    /// When the kernel refuses a map.
    pub fn drain(&mut self) -> anyhow::Result<()> {
        self.drain_until(Instant::now() + self.patience)
    }

    fn drain_until(&mut self, until: Instant) -> anyhow::Result<()> {
        for module in &mut self.modules {
            module.begin_drain(self.node.cgroups());
        }
        self.node.drain()?;
        for module in &mut self.modules {
            module.finish(until);
            for event in module.take_events() {
                self.events.push(event);
            }
        }
        Ok(())
    }

    /// Waits so long for a module, and then goes on without it.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The events that have come, as of the last [`Self::drain`].
    pub fn events(&self) -> &Store {
        &self.events
    }

    /// Keeps so many events at most.
    pub fn keep_events(&mut self, limit: usize) {
        let before = std::mem::replace(&mut self.events, Store::new(limit));
        self.events.follow(before);
    }

    /// Goes on with the events of the reader before this, which it takes for
    /// the last time.
    pub fn follow_events(&mut self, mut before: Self) {
        if let Err(error) = before.drain() {
            let error = format!("{error:#}");
            tracing::warn!(error, "the last events before the reload are lost");
        }
        self.events.follow(before.events);
    }

    /// Since when there is something to count.
    pub fn began(&self) -> SystemTime {
        self.began
    }

    /// What was lost in the kernel, by reason; the objects' losses one after
    /// the other.
    pub fn losses(&self) -> Vec<(&'static str, u64)> {
        let modules = self.modules.iter();
        let modules = modules.flat_map(Collector::losses);
        let node = self.node.losses().unwrap_or_default();
        node.into_iter().chain(modules).collect()
    }

    /// The events since the last call, oldest first, as far as they are kept.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.events.take()
    }

    /// The kernel begins or ceases to keep run-time statistics for us.
    pub fn stats_are(&mut self, on: bool) {
        if let Some(since) = self.stats_since.take() {
            self.stats_time += since.elapsed();
        }
        self.stats_since = on.then(Instant::now);
    }

    /// The name of this node in what is exported.
    pub fn set_node(&mut self, node: &str) {
        self.name = node.into();
    }

    /// The listeners and certificates to tell of.
    pub fn set_serving(&mut self, serving: Arc<Serving>) {
        self.serving = serving;
    }

    /// What should take no longer, and how far back it matters.
    pub fn set_objectives(&mut self, objectives: Objectives) {
        self.digests.follow(objectives);
    }

    /// Time that a scrape took.
    pub fn scraped(&mut self, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the histogram is ours alone.
        unsafe { Histogram::record(&raw mut *self.scrapes, ns) };
    }

    /// The families of the measured signals that `wanted` picks.
    ///
    /// # Errors
    /// When the kernel refuses to hand out a map.
    pub fn families(&mut self, wanted: impl Fn(&Signal) -> bool) -> anyhow::Result<Vec<Family>> {
        self.families_within(self.patience, wanted)
    }

    /// All families, and what is made of their histograms: what is exported.
    ///
    /// # Errors
    /// As [`Self::families`].
    pub fn exported(&mut self, patience: Duration) -> anyhow::Result<Vec<Family>> {
        let mut families = self.families_within(patience, |_| true)?;
        let digests = self.digests.of(&families, Instant::now());
        families.extend(digests);
        Ok(families)
    }

    /// As [`Self::families`], with another limit for modules: one that does not
    /// answer by then is left out, and counted.
    ///
    /// # Errors
    /// As [`Self::families`].
    fn families_within(
        &mut self,
        patience: Duration,
        wanted: impl Fn(&Signal) -> bool,
    ) -> anyhow::Result<Vec<Family>> {
        let until = Instant::now() + patience.min(self.patience);
        self.drain_until(until)?;
        let signals: Vec<&'static Signal> = self
            .node
            .loaded()
            .signals
            .iter()
            .filter(|(signal, is)| *is == Availability::Available && wanted(signal))
            .map(|(signal, _)| *signal)
            .collect();
        let own = |signal: &&&'static Signal| matches!(signal.numbers, Numbers::Facts(_));
        let facts = signals.iter().any(|signal| own(&signal));
        for module in &mut self.modules {
            module.begin_families(&wanted);
        }
        if facts {
            self.node.begin_listening();
        }
        let mut families = self.node.families(&signals, facts)?;
        for module in &mut self.modules {
            families.extend(module.finish(until));
        }
        if facts {
            let facts = self.facts(until)?;
            families.extend(signals.iter().filter_map(|signal| match signal.numbers {
                Numbers::Facts(numbers) => Some(from_facts(signal, &facts, numbers)),
                _ => None,
            }));
        }
        exemplars::attach(&mut families, &self.events);
        Ok(families)
    }
}
