//! The steps.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use kldtrace_abi::plane::count::{plane_counters, rule_counters};

use super::{Change, To, commit_back, commit_next};
use crate::planes::{
    attach,
    install::write,
    interfaces,
    pins::names,
    programs::{Set, remove},
    saved::Saved,
    state::State,
};

/// A step. They are done in the order in which [`Change::step`] says them.
#[derive(Debug)]
pub enum Step {
    /// The policy is on disk.
    Save,
    /// The state says what comes.
    Announce,
    /// The programs of a plane are loaded, for interfaces with a header of
    /// Ethernet or without.
    Programs(u8, bool),
    /// The policy is in the kernel.
    Image,
    /// Interfaces of planes that there were not get their programs.
    Early,
    /// From here on the new policy judges.
    Swap,
    /// All interfaces have the programs that they should.
    Links,
    /// One of them.
    Link(attach::Change),
    /// The state says what is.
    Commit,
    /// What nobody can return to is gone.
    Tidy,
}

impl Change {
    /// Does the next step, and says which it was; `None`: all are done.
    ///
    /// # Errors
    /// What the kernel or the disk says. [`Change::abandon`] goes back then.
    pub fn step(&mut self) -> anyhow::Result<Option<Step>> {
        let Some(step) = self.steps.pop_front() else {
            return Ok(None);
        };
        match &step {
            Step::Save => {
                if let Some((generation, saved)) = &self.target {
                    saved.save(&self.roots, *generation)?;
                }
            }
            Step::Announce => self.state.save(&self.roots, &self.lock)?,
            Step::Programs(plane, ethernet) => {
                self.set()?.load(&self.pins, *plane, *ethernet)?;
            }
            Step::Image => self.image()?,
            Step::Early => {
                let new = self.new_planes()?;
                if !new.is_empty() {
                    self.expand(Some(&new))?;
                }
            }
            Step::Swap => self.swap()?,
            Step::Links => {
                if self.expand(None)? && self.looks > 0 {
                    self.looks -= 1;
                    let made = self
                        .steps
                        .iter()
                        .take_while(|step| matches!(step, Step::Link(_)));
                    let made = made.count();
                    self.steps.insert(made, Step::Links);
                }
            }
            Step::Link(_) => {
                let Step::Link(change) = step else {
                    return Ok(None);
                };
                let said = format!("{change:?}");
                let none = Set::new(self.pins.next_epoch(), 0);
                let made = change.make(&self.pins, self.set.as_ref().unwrap_or(&none));
                match made {
                    Ok(()) => tracing::debug!(change = said, "planes"),
                    Err(error) if self.to == To::Next => return Err(error),
                    // The others must not be without theirs for that.
                    Err(error) => {
                        self.failed.get_or_insert(error);
                    }
                }
                return Ok(Some(Step::Links));
            }
            Step::Commit => self.commit()?,
            Step::Tidy => self.tidy()?,
        }
        Ok(Some(step))
    }

    /// Does all steps that are left. Where one fails before the change is
    /// committed, goes back.
    ///
    /// # Errors
    /// What the kernel or the disk says, and for interfaces that did not get
    /// their programs.
    pub fn finish(mut self) -> anyhow::Result<State> {
        loop {
            match self.step() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if self.steps.is_empty() => {
                    // Only tidying failed: what is left over does nothing.
                    tracing::warn!(error = format!("{error:#}"), "planes");
                }
                Err(error) => return Err(self.abandon(error)),
            }
        }
        match self.failed {
            Some(error) => Err(error),
            None => Ok(self.state),
        }
    }

    fn set(&self) -> anyhow::Result<&Set> {
        self.set.as_ref().context("no programs are planned")
    }

    /// Writes the policy, unless it is there, and clears what it counts in.
    fn image(&mut self) -> anyhow::Result<()> {
        let Some((generation, saved)) = &self.target else {
            return Ok(());
        };
        let pin = self.pins.image(*generation);
        if self.to != To::Next && pin.exists() {
            return Ok(());
        }
        let compiled = match self.compiled.take() {
            Some(compiled) => compiled,
            None => saved.compile(*generation)?,
        };
        if pin.exists() {
            remove(&pin)?;
        }
        write(&compiled.cells)?
            .pin(&pin)
            .with_context(|| format!("cannot pin {}", pin.display()))?;
        let places = self.set()?.places();
        let counts = self.pins.counts_of(places)?;
        if let Some(mut counts) = counts {
            for plane in &self.fresh.0 {
                counts.clear(plane_counters(*plane))?;
            }
            for counter in &self.fresh.1 {
                counts.clear(rule_counters(*counter))?;
            }
        }
        Ok(())
    }

    /// Planes of the policy to come that the running one does not have.
    fn new_planes(&self) -> anyhow::Result<Vec<u8>> {
        let running = self.pins.generation()?;
        let (Some(running), Some((_, saved)), None) = (running, &self.target, &self.epoch) else {
            return Ok(Vec::new());
        };
        // Of a policy that nobody knows, it may have them all.
        let Ok(running) = Saved::numbers_of(&self.roots, running) else {
            return Ok(Vec::new());
        };
        let had = |number: u8| running.all_planes().any(|(_, had)| had == number);
        let numbers = saved.numbers.all_planes().map(|(_, number)| number);
        Ok(numbers.filter(|number| !had(*number)).collect())
    }

    /// Puts changes of links in front of the steps that are left, and says
    /// whether there are some.
    fn expand(&mut self, only: Option<&[u8]>) -> anyhow::Result<bool> {
        let interfaces = interfaces::all()?;
        let changes = match (&self.target, &self.set) {
            (Some((_, saved)), Some(set)) => {
                let wanted = attach::wanted(&saved.policy, &interfaces);
                attach::changes(&self.pins, set, &wanted, &interfaces, only)?
            }
            _ => {
                let held = attach::held(&self.pins)?.into_iter();
                held.map(attach::Change::End).collect()
            }
        };
        let any = !changes.is_empty();
        for change in changes.into_iter().rev() {
            self.steps.push_front(Step::Link(change));
        }
        Ok(any)
    }

    /// The moment.
    fn swap(&mut self) -> anyhow::Result<()> {
        let Some((generation, _)) = &self.target else {
            return Ok(());
        };
        let set = self.set()?;
        set.judge_by(&self.pins.image(*generation))
            .context("cannot put the policy in place")?;
        if let Some(epoch) = self.epoch.take() {
            let (next, folder) = (self.pins.next_epoch(), self.pins.epoch(&epoch));
            fs::rename(&next, &folder)
                .with_context(|| format!("cannot rename {}", next.display()))?;
            self.set = Some(Set::new(folder, epoch.places));
        }
        Ok(())
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        match self.to {
            To::Next => commit_next(&mut self.state)?,
            To::Back(why) => commit_back(&mut self.state, self.by.clone(), why),
            To::Current => return Ok(()),
        }
        self.state.save(&self.roots, &self.lock)
    }

    fn tidy(&mut self) -> anyhow::Result<()> {
        let mut epochs = self.pins.epochs()?;
        let valid = self.state.current.is_some().then(|| epochs.pop()).flatten();
        for epoch in epochs {
            Set::new(self.pins.epoch(&epoch), epoch.places).remove()?;
        }
        let maps = match &valid {
            Some(epoch) => self.pins.shared(epoch.places)?,
            None => Vec::new(),
        };
        let maps: Vec<_> = maps.into_iter().map(|map| map.path).collect();
        self.keep_only(&maps)
    }

    /// Lets go of policies that nobody can return to, of programs that are not
    /// valid yet, and of all shared maps but these.
    fn keep_only(&self, maps: &[PathBuf]) -> anyhow::Result<()> {
        let kept: Vec<_> = self.state.policies().map(|one| one.generation).collect();
        for generation in self.pins.generations()? {
            if !kept.contains(&generation) {
                remove(&self.pins.image(generation))?;
            }
        }
        let next = self.pins.next_epoch();
        if next.exists() {
            Set::new(next, 0).remove()?;
        }
        for name in names(&self.pins.maps())? {
            let path = self.pins.maps().join(name);
            if !maps.contains(&path) {
                remove(&path)?;
            }
        }
        Saved::keep_only(&self.roots, &kept)
    }

    /// Goes back after a step has failed. Returns why it failed, with what
    /// became of going back.
    pub fn abandon(self, error: anyhow::Error) -> anyhow::Error {
        if self.to != To::Next || !self.steps.iter().any(|step| matches!(step, Step::Commit)) {
            return error;
        }
        // Nothing that judges packets is other than before: there is only to let
        // go of what was made, which needs no memory.
        let untouched = self.steps.iter().any(|step| matches!(step, Step::Early));
        let Self {
            roots,
            pins,
            lock,
            mut state,
            maps,
            ..
        } = self;
        let back = || -> anyhow::Result<()> {
            state.next = None;
            if untouched {
                state.save(&roots, &lock)?;
                return Self::recover(&roots, lock)?.keep_only(&maps);
            }
            // A new epoch is no longer the valid one.
            let running = pins.generation()?;
            let current = state.current.as_ref().map(|one| one.generation);
            let mut epochs = pins.epochs()?;
            if running != current
                && epochs.len() > 1
                && let Some(epoch) = epochs.pop()
            {
                let next = pins.next_epoch();
                fs::rename(pins.epoch(&epoch), &next)?;
            }
            state.save(&roots, &lock)?;
            let mut change = Self::recover(&roots, lock)?;
            change.target = match current {
                Some(generation) => Some((generation, Saved::load(&roots, generation)?)),
                None => None,
            };
            change.plan()?;
            change.finish()?;
            Ok(())
        };
        match back() {
            Ok(()) => error.context("nothing has changed"),
            Err(second) => error.context(format!(
                "and going back failed as well ({second:#}): `kldtrace planes status` says what is"
            )),
        }
    }
}
