//! The spool: one bounded queue on disk for everything that is pushed.
//!
//! Entries are appended to segments, files of frames with checksums, and every
//! reader (Loki, OTLP) goes through them at its own pace. A segment that all
//! have read is removed. When the spool is full, the oldest segment goes, and
//! each reader that had not read all of it has the rest counted as lost.
//!
//! An append that returns without an error outlives the process; whether it
//! outlives the machine, [`Settings::sync`] says.

mod cursor;
pub(crate) mod frame;
mod parcel;
mod progress;
mod reader;
pub(crate) mod segment;
mod state;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use self::state::State;
pub use self::{
    frame::MAX_ENTRY,
    parcel::Parcel,
    reader::{Batch, Reader},
};
use crate::push::Lane;

/// How a spool is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where; made if it is missing, for its owner alone.
    pub directory: PathBuf,
    /// Most bytes on disk. At least [`Settings::SMALLEST`].
    pub bytes: u64,
    /// How long at most an entry may be in the kernel's memory alone, and so
    /// be lost with the machine's power. Zero: each append waits for the disk.
    /// `None`: the kernel decides, some 30 s.
    pub sync: Option<Duration>,
}

impl Settings {
    /// The smallest [`Settings::bytes`]: 8 MiB.
    pub const SMALLEST: u64 = 8 << 20;

    /// Bytes after which the next segment begins.
    fn segment(&self) -> u64 {
        (self.bytes / 16).clamp(512 << 10, 32 << 20)
    }
}

/// Why the spool does not take or give something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error("{0} belongs to another running kldtrace")]
    Locked(PathBuf),
    /// An entry is longer than [`MAX_ENTRY`], or all of them are more than a
    /// quarter of the spool.
    #[error("{0} bytes are too many for the spool")]
    TooLarge(usize),
    /// The disk does not.
    #[error("{path}: {error}")]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
}

/// What a spool holds and has lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Bytes on disk.
    pub bytes: u64,
    /// Appends that the disk did not take.
    pub failed: u64,
    /// By reader, as they were named.
    pub readers: Vec<(&'static str, Standing)>,
}

/// How far a reader is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Entries that are not yet acknowledged.
    pub waiting: u64,
    /// Entries that went with the oldest segments because the spool was full.
    pub dropped: u64,
    /// Entries that were damaged on disk.
    pub damaged: u64,
}

/// The side that writes. Clones are the same spool.
#[derive(Clone, Debug)]
pub struct Spool {
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<()>>,
    /// Held while files are synced.
    syncing: Arc<Mutex<()>>,
}

impl Spool {
    /// Opens the spool, and makes it if there is none. `readers`: each with
    /// the lanes that it reads; one that was never here begins with the oldest
    /// entry.
    ///
    /// # Errors
    /// When the directory cannot be used, or another process uses it.
    pub fn open(
        settings: Settings,
        readers: &[(&'static str, &[Lane])],
    ) -> Result<(Self, Vec<Reader>), Error> {
        let state = Arc::new(Mutex::new(State::open(settings, readers)?));
        let changed = Arc::new(watch::Sender::new(()));
        let readers = (0..readers.len())
            .map(|index| Reader::new(state.clone(), changed.subscribe(), index))
            .collect();
        let syncing = Arc::default();
        let spool = Self {
            state,
            changed,
            syncing,
        };
        Ok((spool, readers))
    }

    /// Takes all of `entries`, or none.
    ///
    /// # Errors
    /// When there are too many bytes, or the disk does not take them.
    pub fn append(&self, entries: &[(Lane, &[u8])]) -> Result<(), Error> {
        lock(&self.state).append(entries)?;
        self.changed.send_replace(());
        Ok(())
    }

    /// Waits until the disk has all that was appended. Does nothing where
    /// [`Settings::sync`] leaves that to the kernel.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn sync(&self) -> Result<(), Error> {
        // Who finds nothing to do waits for those who are at it.
        let _syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let files = lock(&self.state).unsynced();
        let mut done = Ok(());
        for (path, file) in files {
            // All of them, also after one has failed.
            if let Err(error) = file.sync_data() {
                done = Err(Error::Disk { path, error });
            }
        }
        done
    }

    /// How often [`Spool::sync`] is to be called; `None`: never.
    pub fn sync_every(&self) -> Option<Duration> {
        let every = lock(&self.state).settings.sync;
        every.filter(|every| !every.is_zero())
    }

    /// What it holds and has lost since it was opened.
    pub fn statistics(&self) -> Statistics {
        lock(&self.state).statistics()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // What a panic interrupted changes the state only as a whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
