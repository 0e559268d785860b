//! The probes of a kernel module, which come and go with it; and those of
//! planes, which come and go with policies.

use std::{cell::LazyCell, os::fd::BorrowedFd, sync::Arc};

use aya::maps::{MapData, RingBuf};
use kldtrace_exporters::model::{Event, Family};

use super::{own::MapState, rings::Rings};
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

    /// Which loading of it is there; `None`: none.
    fn loading(&self) -> Option<Loading> {
        modules::loading(self.object().module?)
    }

    /// What its signals are while none is there, with why, and what to do.
    fn absence(&self) -> Availability {
        Availability::Waiting(modules::absent_because(
            self.object().module.unwrap_or_default(),
        ))
    }

    /// Loads and attaches the probes of these signals. The module is there.
    ///
    /// # Errors
    /// What [`crate::kernel::loader::load`] says.
    fn attach(&mut self, wanted: &[&'static Signal], options: &Options) -> anyhow::Result<()>;

    /// Reads the probes for the last time and lets them go.
    fn detach(&mut self);

    /// Fits what is attached to what has changed since.
    ///
    /// # Errors
    /// When that cannot be; then it is attached anew.
    fn tend(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// A file that tells by `POLLPRI` when there may be something to tend.
    fn changes(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// What is loaded; `None`: nothing is attached.
    fn loaded(&self) -> Option<&Loaded>;

    /// The same, to pass on what the probes tell.
    fn loaded_mut(&mut self) -> Option<&mut Loaded>;

    /// Its ring buffer while it is attached.
    fn ring(&self) -> Option<&RingBuf<MapData>>;

    /// Whether a signal is read and needs no probe: then it is measured even
    /// where none can be attached.
    fn reads(&self, _signal: &Signal) -> bool {
        false
    }

    /// Why a signal is not measured though its hooks are attached; `None`: it
    /// is.
    fn withholds(&self, _signal: &Signal) -> Option<String> {
        None
    }

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
    rings: Arc<Rings>,
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
        rings: &Arc<Rings>,
    ) -> Self {
        let object = module.object();
        let wanted = wanted.iter().copied();
        if let Some(changes) = module.changes() {
            rings.add_changes(changes);
        }
        let mut slot = Self {
            wanted: wanted
                .filter(|signal| std::ptr::eq(signal.subject.object(), object))
                .collect(),
            module,
            rings: rings.clone(),
            options: options.clone(),
            loading: None,
            failure: None,
        };
        slot.follow();
        slot
    }

    pub(super) fn name(&self) -> &'static str {
        self.module.object().name
    }

    /// Attaches to a module that has come, and lets go of one that has left.
    pub(super) fn follow(&mut self) {
        let now = self.module.loading();
        if self.wanted.is_empty() {
            return;
        }
        if now == self.loading {
            self.tend();
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
            Ok(()) => {
                if let Some(ring) = self.module.ring() {
                    self.rings.add(ring);
                }
                tracing::info!(
                    module = self.name(),
                    programs = self.module.loaded().map_or(0, |one| one.attached.len()),
                    "module there, probes attached"
                );
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(module = self.name(), %error, "module there, no probes");
                self.failure = Some(error);
            }
        }
    }

    fn tend(&mut self) {
        if let Err(error) = self.module.tend() {
            let error = format!("{error:#}");
            tracing::warn!(module = self.name(), %error, "probes are attached anew");
            self.module.detach();
            self.loading = None;
        }
    }

    pub(super) fn module(&self) -> &dyn Module {
        &*self.module
    }

    pub(super) fn drain(&mut self, unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
        if let Some(loaded) = self.module.loaded_mut() {
            loaded.flush_diagnostics();
        }
        let had = self.module.ring().is_some();
        let events = self.module.drain(unit);
        // One that another had until now.
        if let Some(ring) = self.module.ring().filter(|_| !had) {
            self.rings.add(ring);
        }
        events
    }

    /// What came of each signal that was asked for.
    pub(super) fn signals(&self) -> Vec<(&'static Signal, Availability)> {
        let withheld = |(signal, is): (&'static Signal, Availability)| {
            let why = match is {
                Availability::Available => self.module.withholds(signal),
                _ => None,
            };
            (signal, why.map_or(is, Availability::Absent))
        };
        if let Some(loaded) = self.module.loaded() {
            return loaded.signals.iter().cloned().map(withheld).collect();
        }
        // Not asked where all is read: it may look at files.
        let why = LazyCell::new(|| match (&self.loading, &self.failure) {
            (Some(_), Some(error)) => Availability::Absent(error.clone()),
            _ => self.module.absence(),
        });
        let wanted = self.wanted.iter().map(|signal| {
            if self.loading.is_some() && self.module.reads(signal) {
                return (*signal, Availability::Available);
            }
            (*signal, why.clone())
        });
        wanted.map(withheld).collect()
    }

    /// Those of its signals that are available and picked.
    pub(super) fn available(&self, picked: impl Fn(&Signal) -> bool) -> Vec<&'static Signal> {
        let signals = self.signals().into_iter();
        let signals = signals
            .filter(|(signal, is)| *is == Availability::Available && picked(signal))
            .map(|(signal, _)| signal);
        signals.collect()
    }

    /// The families of these, which are available.
    pub(super) fn families(&mut self, signals: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
        self.module.families(signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{catalogue, kernel::object::ZFS};

    /// A module for which no probe can be attached, and of which one signal
    /// can be read.
    struct Refused;

    impl Module for Refused {
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
        fn reads(&self, signal: &Signal) -> bool {
            signal.hooks.is_empty()
        }
        fn withholds(&self, signal: &Signal) -> Option<String> {
            (signal.name == "zfs.txg_time").then(|| "no history".to_owned())
        }
        fn drain(&mut self, _: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
            Ok(Vec::new())
        }
        fn families(&mut self, _: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
            Ok(Vec::new())
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
    fn what_is_read_needs_no_probe() {
        let names = ["zfs.op_latency", "zfs.arc_accesses", "zfs.txg_time"];
        let mut slot = Slot {
            module: Box::new(Refused),
            wanted: names.map(|name| catalogue::find(name).unwrap()).to_vec(),
            options: Options::default(),
            rings: Arc::new(Rings::new().unwrap()),
            loading: None,
            failure: None,
        };
        let waiting = |is: &Availability| matches!(is, Availability::Waiting(_));
        assert!(slot.signals().iter().all(|(_, is)| waiting(is)));
        slot.loading = Some(Loading(1));
        slot.failure = Some("refused".to_owned());
        let absent = |why: &str| Availability::Absent(why.to_owned());
        let expected = [
            absent("refused"),
            Availability::Available,
            absent("no history"),
        ];
        let signals = slot.signals().into_iter();
        assert_eq!(signals.map(|(_, is)| is).collect::<Vec<_>>(), expected);
    }
}
