//! Planes follow interfaces and deadlines while the daemon runs. What is
//! attached stays when it ends.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::planes::{roots::Roots, watch::watch};

/// How long after an error interfaces are followed again.
const AGAIN: Duration = Duration::from_secs(5);

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
            while let Err(error) = watch(&Roots::default(), &flag) {
                let error = format!("{error:#}");
                tracing::error!(error, "planes do not follow interfaces: tried again in 5 s");
                let until = Instant::now() + AGAIN;
                while Instant::now() < until && !flag.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(100));
                }
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
