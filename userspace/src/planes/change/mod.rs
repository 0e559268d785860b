//! From one policy to another, in steps. Stopped between any two, the node has
//! the old policy or the new one.
//!
//! ```text
//! Save       the policy is on disk
//! Announce   the state says what comes, by whom and until when to confirm
//! Programs   what is missing is loaded
//! Image      the policy is in the kernel, and counters that it gets are at zero
//! Early      interfaces of planes that the old policy does not have; they pass
//!            all by it, as before
//! Swap       THE MOMENT: one update, or one rename where programs are new
//! Links      other interfaces get their programs, those of no plane lose them
//! Commit     the state says what is
//! Tidy       what nobody can return to goes
//! ```
//!
//! What is found half done is completed if the moment had come, and dropped if
//! not ([`Change::recover`]). All of this is done with the lock.

mod steps;

pub use self::steps::Step;

use std::{collections::VecDeque, fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use super::{
    attach,
    boot::Deadline,
    compile::{self, Compiled},
    interfaces,
    numbers::Numbers,
    pins::{Epoch, Pins, names, object_hash},
    policy::Policy,
    programs::Set,
    roots::Roots,
    saved::{Files, Saved},
    state::{Act, Applied, Confirm, Lock, State, TakenBack, Why},
};

/// Rules that can be counted at the least: maps are not made anew for a few
/// more.
const LEAST_PLACES: u32 = 256;

/// Where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// A policy that is new.
    Next,
    /// The one before, or none.
    Back(Why),
    /// The one that the state says is applied.
    Current,
}

/// A change under way.
#[derive(Debug)]
pub struct Change {
    roots: Roots,
    pins: Pins,
    lock: Lock,
    state: State,
    to: To,
    /// The policy to come; `None`: none, and nothing is filtered.
    target: Option<(u32, Saved)>,
    /// Its image, until it is in the kernel.
    compiled: Option<Compiled>,
    /// Planes and counters whose numbers were another's.
    fresh: (Vec<u8>, Vec<u32>),
    /// The programs to come.
    set: Option<Set>,
    /// The epoch to come, if its programs are new ones.
    epoch: Option<Epoch>,
    /// Maps that were there before.
    maps: Vec<PathBuf>,
    by: Act,
    steps: VecDeque<Step>,
    /// Looks at links that are left: each finds less to do.
    looks: u8,
    /// Why an interface did not get its programs, where others should not do
    /// without them for that.
    failed: Option<anyhow::Error>,
}

impl Change {
    /// A policy that is new. `confirm`: so long it stays unless it is
    /// confirmed.
    ///
    /// # Errors
    /// When one waits to be confirmed, for a policy that is too large, where
    /// another's XDP program is in the way, and without a BPF file system or
    /// rights. Nothing has changed then.
    pub fn apply(
        roots: &Roots,
        lock: Lock,
        files: Files,
        mut policy: Policy,
        confirm: Option<u32>,
    ) -> anyhow::Result<Self> {
        let mut change = Self::recover(roots, lock)?;
        if let Some(current) = &change.state.current
            && current.confirm.is_some()
        {
            bail!(
                "generation {} is not confirmed yet: `kldtrace planes confirm` or \
                 `kldtrace planes rollback` first",
                current.generation
            );
        }
        let kept = change.kept()?;
        let kept: Vec<_> = kept.iter().collect();
        let (mut numbers, planes) = Numbers::planes(&mut policy, &kept)?;
        let generation = change.state.last + 1;
        let mut compiled = compile::image(&policy, generation)?;
        let rules = numbers.rules(&mut compiled, &kept)?;
        change.fresh = (planes, rules);
        change.state.last = generation;
        let confirm = confirm.map(confirm_in).transpose()?;
        change.state.next = Some(Applied {
            generation,
            by: change.by.clone(),
            confirm,
        });
        change.to = To::Next;
        change.compiled = Some(compiled);
        change.target = Some((
            generation,
            Saved {
                files,
                policy,
                numbers,
            },
        ));
        change.steps.extend([Step::Save, Step::Announce]);
        change.plan()?;
        Ok(change)
    }

    /// Back to the policy before; without one, to none, which filters nothing.
    ///
    /// # Errors
    /// When there is nothing to take back, or the policy before is damaged.
    pub fn roll_back(roots: &Roots, lock: Lock, why: Why) -> anyhow::Result<Self> {
        let mut change = Self::recover(roots, lock)?;
        let Some(current) = &change.state.current else {
            bail!("there is no policy to take back");
        };
        match &change.state.previous {
            Some(previous) => {
                let generation = previous.generation;
                change.target = Some((generation, Saved::load(roots, generation)?));
            }
            None if current.confirm.is_none() => bail!(
                "there is no policy to return to: generation {} was confirmed, or is the first \
                 (`kldtrace planes panic-open` lets everything pass)",
                current.generation
            ),
            None => {}
        }
        change.to = To::Back(why);
        change.plan()?;
        Ok(change)
    }

    /// Keeps the policy that waits to be confirmed, and returns its
    /// generation.
    ///
    /// # Errors
    /// When none waits; and when its time is over: then it is taken back.
    pub fn confirm(roots: &Roots, lock: Lock) -> anyhow::Result<u32> {
        let mut change = Self::recover(roots, lock)?;
        let current = change.state.current.as_mut();
        let Some(current) = current.filter(|current| current.confirm.is_some()) else {
            bail!("no policy waits to be confirmed");
        };
        let generation = current.generation;
        if let Some(confirm) = current.confirm.take()
            && confirm.deadline.left()?.is_zero()
        {
            let Self { roots, lock, .. } = change;
            Self::roll_back(&roots, lock, Why::NotConfirmed)?.finish()?;
            bail!("too late: generation {generation} was taken back");
        }
        change.state.save(&change.roots, &change.lock)?;
        Ok(generation)
    }

    /// To what the state says, after a start of the machine, of a new version,
    /// or an interruption. `None`: there is no policy, or everything passes by
    /// `panic-open`.
    ///
    /// # Errors
    /// When the policy is damaged, or does not get into the kernel.
    pub fn restore(roots: &Roots, lock: Lock) -> anyhow::Result<Option<Self>> {
        let mut change = Self::recover(roots, lock)?;
        if change.state.opened.is_some() {
            return Ok(None);
        }
        let Some(current) = &change.state.current else {
            return Ok(None);
        };
        if let Some(confirm) = &current.confirm
            && confirm.deadline.left()?.is_zero()
        {
            let Self { roots, lock, .. } = change;
            return Self::roll_back(&roots, lock, Why::NotConfirmed).map(Some);
        }
        let generation = current.generation;
        change.target = Some((generation, Saved::load(roots, generation)?));
        change.plan()?;
        Ok(Some(change))
    }

    /// Looks at what is there. What was half done is completed or dropped.
    fn recover(roots: &Roots, lock: Lock) -> anyhow::Result<Self> {
        roots.require_bpf_file_system()?;
        let pins = Pins::new(roots);
        pins.make_folders()?;
        let mut state = State::load(roots)?;
        let there = pins.generations()?.into_iter().max().unwrap_or(0);
        state.last = state.last.max(there);
        let running = pins.generation()?;
        let before = state.clone();
        let is = |applied: &Option<Applied>| {
            running.is_some() && applied.as_ref().map(|applied| applied.generation) == running
        };
        if is(&state.next) {
            commit_next(&mut state)?;
        } else if is(&state.previous) {
            let late = state.current.as_ref().and_then(|one| one.confirm.as_ref());
            let late = late.map(|confirm| confirm.deadline.left()).transpose()?;
            let why = match late {
                Some(Duration::ZERO) => Why::NotConfirmed,
                _ => Why::Asked,
            };
            commit_back(&mut state, Act::now(), why);
        }
        state.next = None;
        if state != before {
            state.save(roots, &lock)?;
        }
        let maps = names(&pins.maps())?;
        Ok(Self {
            maps: maps.iter().map(|name| pins.maps().join(name)).collect(),
            roots: roots.clone(),
            pins,
            lock,
            state,
            to: To::Current,
            target: None,
            compiled: None,
            fresh: (Vec::new(), Vec::new()),
            set: None,
            epoch: None,
            by: Act::now(),
            steps: VecDeque::new(),
            looks: 4,
            failed: None,
        })
    }

    /// The numbers of policies that can be returned to.
    fn kept(&self) -> anyhow::Result<Vec<Numbers>> {
        let State {
            current, previous, ..
        } = &self.state;
        let kept = current.iter().chain(previous);
        kept.map(|applied| Saved::numbers_of(&self.roots, applied.generation))
            .collect()
    }

    /// Finds the steps.
    fn plan(&mut self) -> anyhow::Result<()> {
        let epochs = self.pins.epochs()?;
        let last = epochs.last();
        if let Some((_, saved)) = &self.target {
            let interfaces = interfaces::all()?;
            let wanted = attach::wanted(&saved.policy, &interfaces);
            if self.to == To::Next {
                attach::refuse_others(&self.pins, &wanted)?;
            }
            let places = saved.numbers.most().max(LEAST_PLACES).next_power_of_two();
            let stays = match last {
                Some(epoch) => {
                    epoch.hash == object_hash()
                        && epoch.places >= places
                        && !self.moves(epoch, &wanted)?
                }
                None => false,
            };
            if let (Some(epoch), true) = (last, stays) {
                self.set = Some(Set::new(self.pins.epoch(epoch), epoch.places));
            } else {
                let next = self.pins.next_epoch();
                self.epoch = Some(Epoch {
                    number: last.map_or(1, |epoch| epoch.number + 1),
                    hash: object_hash(),
                    places: last.map_or(0, |epoch| epoch.places).max(places),
                });
                if next.exists() {
                    Set::new(next.clone(), 0).remove()?;
                }
                fs::create_dir(&next).with_context(|| format!("cannot make {}", next.display()))?;
                let places = self.epoch.as_ref().map_or(0, |epoch| epoch.places);
                self.set = Some(Set::new(next, places));
            }
            let mut kinds: Vec<_> = wanted
                .iter()
                .map(|(interface, plane)| (*plane, interface.ethernet))
                .collect();
            kinds.sort_unstable();
            kinds.dedup();
            if kinds.is_empty() {
                // Then they are ready for the first interface.
                kinds.extend(
                    saved
                        .policy
                        .planes
                        .first()
                        .map(|plane| (plane.number, false)),
                );
            }
            let programs = kinds.into_iter();
            self.steps
                .extend(programs.map(|(plane, ethernet)| Step::Programs(plane, ethernet)));
            self.steps.extend([Step::Image, Step::Early, Step::Swap]);
        }
        self.steps.extend([Step::Links, Step::Commit, Step::Tidy]);
        Ok(())
    }

    /// Whether an interface would go from one plane's programs to another's:
    /// with the same outer map, it would be without a plane in between.
    fn moves(
        &self,
        epoch: &Epoch,
        wanted: &[(&interfaces::Interface, u8)],
    ) -> anyhow::Result<bool> {
        let programs = Set::new(self.pins.epoch(epoch), epoch.places).programs()?;
        let held = attach::held(&self.pins)?;
        Ok(wanted.iter().any(|(interface, plane)| {
            held.iter().any(|held| {
                let program = programs.get(&held.info.program);
                held.info.interface == interface.index
                    && program.is_some_and(|program| program.plane != *plane)
            })
        }))
    }

    /// The state as the steps so far leave it.
    pub fn state(&self) -> &State {
        &self.state
    }
}

fn confirm_in(seconds: u32) -> anyhow::Result<Confirm> {
    Ok(Confirm {
        seconds,
        deadline: Deadline::after(Duration::from_secs(seconds.into()))?,
    })
}

/// The policy that came is the one that is. Its time to be confirmed begins.
fn commit_next(state: &mut State) -> anyhow::Result<()> {
    if let Some(mut next) = state.next.take() {
        if let Some(confirm) = &next.confirm
            && !confirm.deadline.left()?.is_zero()
        {
            next.confirm = Some(confirm_in(confirm.seconds)?);
        }
        state.previous = state.current.take();
        state.current = Some(next);
        state.opened = None;
    }
    Ok(())
}

/// The policy before is the one that is.
fn commit_back(state: &mut State, by: Act, why: Why) {
    if let Some(taken) = state.current.take() {
        state.taken_back = Some(TakenBack {
            generation: taken.generation,
            by,
            why,
        });
    }
    state.current = state.previous.take();
    state.opened = None;
}
