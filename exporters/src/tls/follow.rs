//! Something that is made of files, and made anew when they change.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{
    Error, Files,
    files::{Bytes, Material},
};

/// What came of looking at the files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// They are as they were.
    Unchanged,
    /// They changed: new connections use what they hold now.
    Renewed,
}

/// The state of what is made of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When our certificate, or the first of those that certify it, expires:
    /// seconds since 1970. `None`: we have none.
    pub not_after: Option<i64>,
    /// How often new files were taken into use.
    pub renewals: u64,
    /// How often changed files could not be used, and the old were kept.
    pub failures: u64,
}

/// What looks at its files again. Call it every few seconds: certificates are
/// replaced by renaming or by writing into them, and a pair takes two steps.
pub trait Follow: Send + Sync {
    /// Reads the files, and takes them into use if they have changed, are whole
    /// and fit together.
    ///
    /// # Errors
    /// When they have changed and cannot be used: once for each change. What
    /// was read before stays in use.
    fn refresh(&self) -> Result<Refreshed, Error>;

    /// What has come of it so far.
    fn state(&self) -> State;
}

type Make<T> = Box<dyn Fn(&Material) -> Result<T, Error> + Send + Sync>;

/// A `T` made of files.
pub(super) struct Followed<T> {
    files: Files,
    make: Make<T>,
    current: RwLock<Current<T>>,
    /// What the files held when they were last looked at, also if that could
    /// not be used. Held while they are read: two at once would be two errors.
    looked_at: Mutex<u64>,
    renewals: AtomicU64,
    failures: AtomicU64,
}

struct Current<T> {
    made: Arc<T>,
    not_after: Option<i64>,
    digest: u64,
}

impl<T> Followed<T> {
    pub fn new(
        files: Files,
        make: impl Fn(&Material) -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let make: Make<T> = Box::new(make);
        let current = Current::make(&files, &make, files.bytes())?;
        Ok(Self {
            looked_at: Mutex::new(current.digest),
            current: RwLock::new(current),
            files,
            make,
            renewals: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        })
    }

    /// What is in use.
    pub fn current(&self) -> Arc<T> {
        let current = self.current.read();
        current.unwrap_or_else(PoisonError::into_inner).made.clone()
    }
}

impl<T> Current<T> {
    fn make(files: &Files, make: &Make<T>, bytes: Bytes) -> Result<Self, Error> {
        let digest = bytes.digest();
        let material = files.material(bytes)?;
        Ok(Self {
            made: Arc::new(make(&material)?),
            not_after: material.not_after,
            digest,
        })
    }
}

impl<T: Send + Sync> Follow for Followed<T> {
    fn refresh(&self) -> Result<Refreshed, Error> {
        let looked_at = self.looked_at.lock();
        let mut looked_at = looked_at.unwrap_or_else(PoisonError::into_inner);
        let bytes = self.files.bytes();
        let digest = bytes.digest();
        if std::mem::replace(&mut *looked_at, digest) == digest {
            return Ok(Refreshed::Unchanged);
        }
        let current = self.current.read();
        if current.unwrap_or_else(PoisonError::into_inner).digest == digest {
            // Back to what is in use: somebody took back what was wrong.
            return Ok(Refreshed::Unchanged);
        }
        match Current::make(&self.files, &self.make, bytes) {
            Ok(new) => {
                let current = self.current.write();
                *current.unwrap_or_else(PoisonError::into_inner) = new;
                self.renewals.fetch_add(1, Relaxed);
                Ok(Refreshed::Renewed)
            }
            Err(error) => {
                self.failures.fetch_add(1, Relaxed);
                Err(error)
            }
        }
    }

    fn state(&self) -> State {
        let current = self.current.read();
        State {
            not_after: current.unwrap_or_else(PoisonError::into_inner).not_after,
            renewals: self.renewals.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }
}
