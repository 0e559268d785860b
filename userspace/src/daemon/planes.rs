//! Planes follow interfaces and deadlines while the daemon runs. What is
//! attached stays when it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::planes::{roots::Roots, watch::watch};

/// A thread that follows them.
pub(super) struct Follower {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Follower {
    /// Starts it. It does nothing where no policy was ever applied.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn start() -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = thread::Builder::new().name("planes".to_owned());
        let thread = thread.spawn(move || {
            if let Err(error) = watch(&Roots::default(), &flag) {
                let error = format!("{error:#}");
                tracing::error!(error, "planes do not follow interfaces");
            }
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends it, after what it is doing.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the thread that follows interfaces for planes panicked");
        }
    }
}
