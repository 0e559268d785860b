//! The folder of a guest's run, which one run at a time may have: each makes
//! the root and the disks anew.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::sh;

/// A folder that is this run's. The kernel takes the lock away when the run
/// ends, however it ends.
#[derive(Debug)]
pub struct Held {
    folder: PathBuf,
    /// Locked as long as it is open.
    _lock: File,
}

impl Held {
    /// The folder of a guest in this clone.
    ///
    /// # Errors
    /// When another run has it; says which.
    pub fn of(name: &str) -> Result<Self> {
        Self::at(sh::target_dir().join("vm").join(name))
    }

    fn at(folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Empty where it has only just been locked.
                let _ = lock.read_to_string(&mut holder);
                let who = match holder.trim() {
                    "" => "another run".to_owned(),
                    process => format!("process {process}"),
                };
                bail!(
                    "{who} runs this guest in {}: wait for its end",
                    folder.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        lock.set_len(0)?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }
}

impl std::ops::Deref for Held {
    type Target = Path;
    fn deref(&self) -> &Path {
        &self.folder
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_has_a_folder_and_the_next_is_told_which() {
        let folder = std::env::temp_dir().join(format!("kldtrace-held-{}", std::process::id()));
        let first = Held::at(folder.clone()).unwrap();
        let error = Held::at(folder.clone()).unwrap_err().to_string();
        let process = format!("process {} runs", std::process::id());
        assert!(error.contains(&process), "{error}");
        drop(first);
        drop(Held::at(folder.clone()).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
