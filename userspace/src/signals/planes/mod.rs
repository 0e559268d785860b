//! Planes: what their programs count and tell, by the pinned maps.
//!
//! The programs are nobody's: whoever applies a policy attaches them, and they
//! stay when the daemon ends. Here is only who reads. Of the ring buffer one
//! alone can: what is read there is gone. So whoever reads has a lock, and
//! another waits until it is free.

mod attached;
mod events;
mod flows;
mod named;
mod read;
mod ring;

use std::sync::Arc;

use aya::maps::{MapData, RingBuf};
use kldtrace_abi::loss::Loss;
use kldtrace_exporters::model::{Event, Family};

use self::{events::Sampled, flows::Flows};
pub use self::{
    named::Named,
    read::{AttachedRead, FlowsRead, PlaneRead, PlanesRead, RuleRead, Verdict},
    ring::Ring,
};
use super::{clock::Clock, families::from_facts, module::Module, own::MapState};
use crate::{
    catalogue::{Numbers, Signal},
    kernel::{
        loader::{Availability, Loaded, Options},
        modules::Loading,
        object::{ObjectFile, PLANE},
    },
    planes::{install::Counts, pins::Pins, roots::Roots, state::State},
};

/// Why planes are not read though they are there: they will be in a moment.
const APPLIED_JUST_NOW: &str = "a policy was applied just now";

/// What is open of one set of programs.
struct Open {
    counts: Counts,
    flows: Flows,
    /// `None`: another reads it.
    ring: Option<Ring>,
}

/// The planes' programs.
pub struct Planes {
    roots: Roots,
    pins: Pins,
    /// Rules that have series of their own, at most.
    series: usize,
    open: Option<Open>,
    named: Named,
    sampled: Sampled,
    read: PlanesRead,
}

impl Planes {
    /// Those below these folders. `series` is the limit of label sets.
    pub fn new(roots: Roots, series: usize) -> Self {
        Self {
            pins: Pins::new(&roots),
            roots,
            series,
            open: None,
            named: Named::default(),
            sampled: Sampled::default(),
            read: PlanesRead::default(),
        }
    }

    /// Packets that were not told of: by the limit, or for want of room where
    /// nobody listened.
    fn untold(&self) -> u64 {
        let losses = self.pins.losses().unwrap_or_default();
        let untold = [Loss::PlaneEvent, Loss::Event];
        let untold = losses.iter().filter(|(loss, _)| untold.contains(loss));
        untold.map(|(_, count)| count).sum()
    }
}

impl Module for Planes {
    fn object(&self) -> &'static ObjectFile {
        &PLANE
    }

    fn loading(&self) -> Option<Loading> {
        let epoch = self.pins.epochs().ok()?.pop()?;
        let number = u64::from(epoch.number) << 32 | u64::from(epoch.hash);
        Some(Loading(number))
    }

    /// Where a policy was applied its programs should be there.
    fn absence(&self) -> Availability {
        let applied = State::load(&self.roots).map(|state| state.current.is_some());
        match (self.pins.epochs(), applied) {
            (Ok(epochs), _) if !epochs.is_empty() => {
                Availability::Waiting(APPLIED_JUST_NOW.to_owned())
            }
            (Ok(_), Ok(false)) => {
                Availability::Unused("no policy is applied: kldtrace planes apply FILE".to_owned())
            }
            (Ok(_), Ok(true)) => Availability::Waiting(
                "the policy's programs are gone: kldtrace planes restore".to_owned(),
            ),
            (Err(error), _) | (_, Err(error)) => Availability::Waiting(format!("{error:#}")),
        }
    }

    fn attach(&mut self, _: &[&'static Signal], _: &Options) -> anyhow::Result<()> {
        let counts = self.pins.counts()?;
        let counts = counts.ok_or_else(|| anyhow::anyhow!("the planes' programs are gone"))?;
        self.open = Some(Open {
            counts,
            flows: Flows::open(&self.pins)?,
            ring: None,
        });
        self.sampled = Sampled::from(self.untold());
        Ok(())
    }

    fn detach(&mut self) {
        self.open = None;
    }

    fn loaded(&self) -> Option<&Loaded> {
        None
    }

    fn loaded_mut(&mut self) -> Option<&mut Loaded> {
        None
    }

    fn ring(&self) -> Option<&RingBuf<MapData>> {
        Some(self.open.as_ref()?.ring.as_ref()?.events())
    }

    fn reads(&self, _: &Signal) -> bool {
        self.open.is_some()
    }

    fn drain(&mut self, _unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
        let Some(open) = &mut self.open else {
            return Ok(Vec::new());
        };
        if open.ring.is_none() {
            open.ring = Ring::take(&self.pins)?;
        }
        let Some(ring) = &mut open.ring else {
            return Ok(Vec::new());
        };
        let told = ring.read();
        if told.is_empty() {
            return Ok(Vec::new());
        }
        // Packets are told with the names that there were, where others cannot be
        // read: whoever reads the numbers is told why.
        let _ = self.named.follow(&self.roots);
        let untold = self.untold();
        let sampled = self.sampled.among(told.len() as u64, untold);
        let clock = Clock::now();
        let told = told.iter();
        Ok(told
            .map(|told| events::event(told, &self.named, sampled, &clock))
            .collect())
    }

    fn families(&mut self, signals: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
        self.named.follow(&self.roots)?;
        let untold = self.untold();
        let Some(open) = &mut self.open else {
            return Ok(Vec::new());
        };
        self.read = PlanesRead {
            untold,
            flows: open.flows.read()?,
            attached: attached::read(&self.pins, &self.named)?,
            ..PlanesRead::of(&open.counts, &self.named, self.series)?
        };
        let numbers = signals.iter().filter_map(|signal| match signal.numbers {
            Numbers::Planes(numbers) => Some(from_facts(signal, &self.read, numbers)),
            _ => None,
        });
        Ok(numbers.collect())
    }

    fn map_states(&self) -> Vec<MapState> {
        Vec::new()
    }

    fn losses(&self) -> Vec<(&'static str, u64)> {
        let losses = self.pins.losses().unwrap_or_default();
        let ours = [
            Loss::Event,
            Loss::PlaneEvent,
            Loss::PlaneFlow,
            Loss::PlaneRate,
        ];
        let losses = losses.into_iter().filter(|(loss, _)| ours.contains(loss));
        losses.map(|(loss, count)| (loss.as_str(), count)).collect()
    }

    fn folded(&self) -> Vec<(&'static str, u64)> {
        vec![("planes", self.read.folded)]
    }
}
