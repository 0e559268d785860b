//! The probes of a kernel module, which come and go with it.

use std::sync::Arc;

use kldtrace_exporters::model::{Event, Family};

use super::own::MapState;
use crate::{
    catalogue::Signal,
    kernel::{
        loader::{Availability, Loaded, Options},
        modules::{self, Loading},
        object::ObjectFile,
    },
};

/// What the probes of a module count, and what is read of it. It outlives the
/// module: what was counted stays in its sums.
pub trait Module: Send {
    /// Its object of probes.
    fn object(&self) -> &'static ObjectFile;

    /// Loads and attaches the probes of these signals. The module is there.
    ///
    /// # Errors
    /// What [`crate::kernel::loader::load`] says.
    fn attach(&mut self, wanted: &[&'static Signal], options: &Options) -> anyhow::Result<()>;

    /// Reads the probes for the last time and lets them go.
    fn detach(&mut self);

    /// What is loaded; `None`: nothing is attached.
    fn loaded(&self) -> Option<&Loaded>;

    /// The same, to pass on what the probes tell.
    fn loaded_mut(&mut self) -> Option<&mut Loaded>;

    /// Takes in what came through the ring buffer, and says what of it people
    /// want to know. `unit` names a cgroup.
    ///
    /// # Errors
    /// When the kernel refuses a map.
    fn drain(&mut self, unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>>;

    /// The families of these signals, all of which are available.
    ///
    /// # Errors
    /// When the kernel refuses a map.
    fn families(&mut self, signals: &[&'static Signal]) -> anyhow::Result<Vec<Family>>;

    /// How full its maps are, as of the last reading.
    fn map_states(&self) -> Vec<MapState>;

    /// What was lost since the daemon began, by reason: also what was lost in
    /// probes that have been let go.
    fn losses(&self) -> Vec<(&'static str, u64)>;

    /// Label sets without series of their own, by subject.
    fn folded(&self) -> Vec<(&'static str, u64)>;
}

/// A module, there or not, and the signals that want it.
pub(super) struct Slot {
    module: Box<dyn Module>,
    wanted: Vec<&'static Signal>,
    options: Options,
    /// The loading that was attached to, or at least tried.
    loading: Option<Loading>,
    /// Why nothing could be attached to it.
    failure: Option<String>,
}

impl Slot {
    pub(super) fn new(
        module: Box<dyn Module>,
        wanted: &[&'static Signal],
        options: &Options,
    ) -> Self {
        let object = module.object();
        let wanted = wanted.iter().copied();
        let mut slot = Self {
            wanted: wanted
                .filter(|signal| std::ptr::eq(signal.subject.object(), object))
                .collect(),
            module,
            options: options.clone(),
            loading: None,
            failure: None,
        };
        slot.follow();
        slot
    }

    fn name(&self) -> &'static str {
        self.module.object().name
    }

    /// Attaches to a module that has come, and lets go of one that has left.
    pub(super) fn follow(&mut self) {
        let Some(module) = self.module.object().module else {
            return;
        };
        let now = modules::loading(module);
        if now == self.loading || self.wanted.is_empty() {
            return;
        }
        if self.loading.is_some() {
            self.module.detach();
            tracing::info!(module = self.name(), "module gone, probes let go");
        }
        self.loading = now;
        self.failure = None;
        if now.is_none() {
            return;
        }
        match self.module.attach(&self.wanted, &self.options) {
            Ok(()) => tracing::info!(
                module = self.name(),
                programs = self.module.loaded().map_or(0, |one| one.attached.len()),
                "module there, probes attached"
            ),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(module = self.name(), %error, "module there, no probes");
                self.failure = Some(error);
            }
        }
    }

    pub(super) fn module(&self) -> &dyn Module {
        &*self.module
    }

    pub(super) fn drain(&mut self, unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
        if let Some(loaded) = self.module.loaded_mut() {
            loaded.flush_diagnostics();
        }
        self.module.drain(unit)
    }

    /// What came of each signal that was asked for.
    pub(super) fn signals(&self) -> Vec<(&'static Signal, Availability)> {
        if let Some(loaded) = self.module.loaded() {
            return loaded.signals.clone();
        }
        let module = self.module.object().module.unwrap_or_default();
        let why = match (&self.loading, &self.failure) {
            (Some(_), Some(error)) => Availability::Absent(error.clone()),
            _ => Availability::Waiting(modules::absent_because(module)),
        };
        let wanted = self.wanted.iter();
        wanted.map(|signal| (*signal, why.clone())).collect()
    }

    /// The families of those of its signals that are available and picked.
    pub(super) fn families(
        &mut self,
        picked: impl Fn(&Signal) -> bool,
    ) -> anyhow::Result<Vec<Family>> {
        let signals: Vec<_> = self
            .signals()
            .into_iter()
            .filter(|(signal, is)| *is == Availability::Available && picked(signal))
            .map(|(signal, _)| signal)
            .collect();
        if signals.is_empty() {
            return Ok(Vec::new());
        }
        self.module.families(&signals)
    }
}
