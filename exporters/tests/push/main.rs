//! Delivery from the spool to a destination whose answers the test decides.
//! Time is tokio's own and stands still unless all wait for it.

mod batches;
mod refused;
mod trouble;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use kldtrace_exporters::{
    push::{Aside, Counters, Delivery, Destination, Entry, Lane, Settings, Verdict},
    spool::{self, Reader, Spool, Standing},
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};

const GRACE: Duration = Duration::from_secs(2);

/// What a request had, and when it came.
type Request = (Vec<String>, Instant);

/// Takes requests and answers as the test says.
struct Double<F> {
    requests: Arc<Mutex<Vec<Request>>>,
    answer: F,
}

impl<F: FnMut(&[String]) -> Verdict> Destination for Double<F> {
    async fn send(&mut self, entries: &[Entry<'_>]) -> Verdict {
        // As long as a network takes.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let texts = entries
            .iter()
            .map(|entry| String::from_utf8(entry.bytes.to_vec()).unwrap());
        let texts: Vec<_> = texts.collect();
        let verdict = (self.answer)(&texts);
        self.requests.lock().unwrap().push((texts, Instant::now()));
        verdict
    }
}

/// A spool and a delivery that runs.
struct Running {
    directory: Arc<tempfile::TempDir>,
    spool: Spool,
    requests: Arc<Mutex<Vec<Request>>>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn settings() -> Settings {
    Settings {
        bytes: 10_000,
        age: Duration::from_secs(1),
        longest_wait: Duration::from_mins(1),
    }
}

fn open(directory: &std::path::Path) -> (Spool, Reader) {
    let settings = spool::Settings {
        directory: directory.to_owned(),
        bytes: spool::Settings::SMALLEST,
        sync: None,
    };
    let (spool, readers) = Spool::open(settings, &[("double", &[Lane::Events])]).unwrap();
    (spool, readers.into_iter().next().unwrap())
}

impl Running {
    fn start(answer: impl FnMut(&[String]) -> Verdict + Send + 'static) -> Self {
        Self::there(Arc::new(tempfile::tempdir().unwrap()), answer)
    }

    fn there(
        directory: Arc<tempfile::TempDir>,
        answer: impl FnMut(&[String]) -> Verdict + Send + 'static,
    ) -> Self {
        let (spool, reader) = open(directory.path());
        let requests = Arc::default();
        let counters = Arc::new(Counters::default());
        let (stop, stopped) = watch::channel(false);
        let delivery = Delivery {
            name: "double",
            reader,
            destination: Double {
                requests: Arc::clone(&requests),
                answer,
            },
            settings: settings(),
            counters: counters.clone(),
            aside: Arc::new(Aside::new(directory.path().join("refused.jsonl"), 1 << 20)),
        };
        let task = tokio::spawn(delivery.run(stopped, GRACE));
        Self {
            directory,
            spool,
            requests,
            counters,
            stop,
            task,
        }
    }

    fn append(&self, texts: impl IntoIterator<Item = String>) {
        let texts: Vec<_> = texts.into_iter().collect();
        let entries = texts.iter().map(|text| (Lane::Events, text.as_bytes()));
        self.spool.append(&entries.collect::<Vec<_>>()).unwrap();
    }

    /// Waits until nothing waits any more.
    async fn emptied(&self) {
        while self.standing().waiting > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn standing(&self) -> Standing {
        self.spool.statistics().readers[0].1
    }

    fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// All that came, request by request.
    fn came(&self) -> Vec<String> {
        let requests = self.requests();
        requests.into_iter().flat_map(|(texts, _)| texts).collect()
    }

    async fn end(self) -> Arc<tempfile::TempDir> {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        self.directory
    }
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn later(after: Option<u64>) -> Verdict {
    Verdict::Later {
        why: "busy".to_owned(),
        after: after.map(Duration::from_secs),
    }
}
