//! Follows interfaces and deadlines: a new interface of a plane gets its
//! programs, and a policy that nobody confirms is taken back.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant, SystemTime},
};

use super::{
    attach,
    change::Change,
    interfaces::Changes,
    journal,
    pins::Pins,
    policy::Policy,
    programs::Set,
    roots::Roots,
    saved::Saved,
    state::{Lock, State},
};

/// How often deadlines, and whether others have changed something, are looked
/// at, in milliseconds.
const TURN: u16 = 500;
/// What failed is tried again after so long: reading a large policy takes its
/// time.
const RETRY: Duration = Duration::from_secs(10);
/// How long whoever changes something is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// When a file was written, and its inode: each writing makes a new one.
type Written = (SystemTime, u64);

/// What is followed.
struct Watch<'a> {
    roots: &'a Roots,
    pins: Pins,
    /// Which writing of the state this is from.
    seen: Option<Written>,
    state: State,
    /// The policy that is applied.
    policy: Option<Policy>,
    /// When what failed is tried again.
    retry: Option<Instant>,
}

/// Follows until `stop`. What fails is logged, and tried again.
///
/// # Errors
/// When the kernel does not tell of interfaces.
pub fn watch(roots: &Roots, stop: &AtomicBool) -> anyhow::Result<()> {
    let changes = Changes::follow()?;
    let mut watch = Watch {
        roots,
        pins: Pins::new(roots),
        seen: None,
        state: State::default(),
        policy: None,
        retry: None,
    };
    let mut complained = None;
    while !stop.load(Ordering::Relaxed) {
        let some = changes.wait(TURN)?;
        match watch.turn(some) {
            Ok(()) => complained = None,
            Err(error) => {
                let error = format!("{error:#}");
                if complained.as_ref() != Some(&error) {
                    tracing::error!(error, "planes");
                    complained = Some(error);
                }
            }
        }
    }
    Ok(())
}

impl Watch<'_> {
    /// Looks whether there is something to do, and does it.
    fn turn(&mut self, interfaces_changed: bool) -> anyhow::Result<()> {
        let Some(written) = self.written() else {
            // Nothing was ever applied.
            return Ok(());
        };
        if self.seen != Some(written) {
            if self.retry.is_some_and(|at| Instant::now() < at) {
                return Ok(());
            }
            self.retry = Some(Instant::now() + RETRY);
            self.take_in(written)?;
            self.retry = None;
        } else if self.policy.is_some() && self.is_late()? {
            let lock = Lock::wait(self.roots, PATIENCE)?;
            if let Some(change) = Change::restore(self.roots, lock)? {
                change.finish()?;
                journal::tell("planes: a policy was not confirmed in time: taken back");
            }
            return Ok(());
        }
        if interfaces_changed || attach::ended_away(&self.pins)? {
            self.attach()?;
        }
        Ok(())
    }

    fn written(&self) -> Option<Written> {
        let file = fs::metadata(self.roots.state.join("state.json")).ok()?;
        Some((file.modified().ok()?, file.ino()))
    }

    /// Takes a state in that is new, and completes what was left half done.
    fn take_in(&mut self, written: Written) -> anyhow::Result<()> {
        // Whoever wrote it may be at work still.
        let lock = Lock::wait(self.roots, PATIENCE)?;
        self.state = State::load(self.roots)?;
        let open = self.state.opened.is_some() || self.is_open()?;
        if !open && let Some(change) = Change::restore(self.roots, lock)? {
            self.state = change.finish()?;
        }
        let current = self.state.current.as_ref().filter(|_| !open);
        self.policy = match current {
            Some(applied) => Some(Saved::load(self.roots, applied.generation)?.policy),
            None => None,
        };
        self.seen = self.written();
        // Between both it may have been written again.
        if self.seen != Some(written) && self.state != State::load(self.roots)? {
            self.seen = None;
            return Ok(());
        }
        self.prepare()
    }

    /// Whether programs are there and have no policy: somebody broke the
    /// glass, and could not write it down.
    fn is_open(&self) -> anyhow::Result<bool> {
        Ok(!self.pins.epochs()?.is_empty() && self.pins.generation()?.is_none())
    }

    fn is_late(&self) -> anyhow::Result<bool> {
        let current = self.state.current.iter().chain(&self.state.next);
        for confirm in current.filter_map(|applied| applied.confirm.as_ref()) {
            if confirm.deadline.left()?.is_zero() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn set(&self) -> anyhow::Result<Option<Set>> {
        let epoch = self.pins.epochs()?.pop();
        Ok(epoch.map(|epoch| Set::new(self.pins.epoch(&epoch), epoch.places)))
    }

    /// Loads the programs of all planes for both kinds of interface: the first
    /// interface of a plane does not wait for the verifier.
    fn prepare(&self) -> anyhow::Result<()> {
        let (Some(policy), Some(set)) = (&self.policy, self.set()?) else {
            return Ok(());
        };
        for plane in &policy.planes {
            for ethernet in [false, true] {
                // Whoever applies another policy does not wait for all of them.
                let _lock = Lock::wait(self.roots, PATIENCE)?;
                if self.written() != self.seen {
                    return Ok(());
                }
                set.load(&self.pins, plane.number, ethernet)?;
            }
        }
        Ok(())
    }

    fn attach(&self) -> anyhow::Result<()> {
        let Some(policy) = &self.policy else {
            return Ok(());
        };
        let began = Instant::now();
        let _lock = Lock::wait(self.roots, PATIENCE)?;
        if self.written() != self.seen {
            // Another policy: it is taken in next, with all interfaces.
            return Ok(());
        }
        let Some(set) = self.set()? else {
            return Ok(());
        };
        if attach::settle(&self.pins, &set, policy)? {
            tracing::info!(
                microseconds = began.elapsed().as_micros(),
                "planes follow interfaces"
            );
        }
        Ok(())
    }
}
