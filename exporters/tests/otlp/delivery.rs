//! From the spool to a receiver that is not always as it should be.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kldtrace_exporters::{
    otlp::{Otlp, Protocol, Settings},
    push::{self, Aside, Counters, Counts, Delivery, Lane},
    spool::{self, Spool, Standing},
};
use opentelemetry_proto::tonic::{common::v1::any_value::Value, logs::v1::LogRecord};
use tokio::sync::watch;

use crate::{
    PROTOCOLS, bytes, pairs,
    receiver::{Answer, Receiver},
    resource, settings, slow,
};

/// A spool and a delivery out of it that runs.
pub struct Running {
    spool: Spool,
    counters: Arc<Counters>,
    folder: tempfile::TempDir,
    _stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    pub fn start(settings: &Settings) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let wanted = spool::Settings {
            directory: folder.path().to_owned(),
            bytes: 64 << 20,
            sync: None,
        };
        let lanes: &[Lane] = &[Lane::Events, Lane::Metrics];
        let (spool, readers) = Spool::open(wanted, &[("otlp", lanes)]).unwrap();
        let counters = Arc::new(Counters::default());
        let delivery = Delivery {
            name: "otlp",
            reader: readers.into_iter().next().unwrap(),
            destination: Otlp::new(settings, resource()).unwrap(),
            settings: push::Settings {
                bytes: 64 << 10,
                age: Duration::from_millis(20),
                longest_wait: Duration::from_millis(50),
            },
            counters: counters.clone(),
            aside: Arc::new(Aside::new(folder.path().join("refused.jsonl"), 1 << 20)),
        };
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(delivery.run(stopped, Duration::ZERO));
        Self {
            spool,
            counters,
            folder,
            _stop: stop,
            task,
        }
    }

    /// Slow operations with these numbers.
    pub fn append(&self, ids: std::ops::Range<u64>) {
        let records: Vec<_> = ids.map(|id| bytes(&slow(id))).collect();
        let entries: Vec<_> = records.iter().map(|one| (Lane::Events, &one[..])).collect();
        self.spool.append(&entries).unwrap();
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, holds: impl Fn(Counts, Standing) -> bool) {
        let start = Instant::now();
        while !holds(self.counters.read(), self.standing()) {
            assert!(start.elapsed() < Duration::from_secs(30), "{what}");
            assert!(!self.task.is_finished(), "{what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until nothing waits any more.
    pub async fn emptied(&self) {
        let empty = |_, standing: Standing| standing.waiting == 0;
        self.until("all to be through", empty).await;
    }

    pub fn counts(&self) -> Counts {
        self.counters.read()
    }

    pub fn standing(&self) -> Standing {
        self.spool.statistics().readers[0].1
    }

    /// Lines about what was refused.
    fn aside(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("refused.jsonl"));
        let text = text.unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Numbers of the events whose logs came, in the order in which they came.
pub fn ids(receiver: &Receiver) -> Vec<u64> {
    let logs = receiver.logs();
    let id = |log: &LogRecord| {
        let pairs = pairs(&log.attributes);
        match pairs.iter().find(|(name, _)| *name == "event_id") {
            Some((_, Value::IntValue(id))) => id.cast_unsigned(),
            other => panic!("{other:?}"),
        }
    };
    logs.iter().map(id).collect()
}

#[tokio::test]
async fn a_receiver_that_comes_back_has_everything_once_and_in_order() {
    for protocol in PROTOCOLS {
        let first = Receiver::start(protocol).await;
        let running = Running::start(&settings(first.url(), protocol));
        running.append(0..100);
        running.emptied().await;
        let before = ids(&first);
        let port = first.port;
        first.end().await;
        for from in (100..1000).step_by(100) {
            running.append(from..from + 100);
        }
        running
            .until("tries", |counts, _| counts.requests_later >= 3)
            .await;
        assert_eq!(running.standing().waiting, 900);
        let back = Receiver::at(port, protocol, None).await;
        running.emptied().await;
        let came: Vec<_> = before.into_iter().chain(ids(&back)).collect();
        assert_eq!(came, (0..1000).collect::<Vec<_>>());
        assert_eq!(back.spans().len(), 2700);
        let counts = running.counts();
        assert_eq!((counts.taken, counts.refused), (1000, 0));
        let standing = running.standing();
        assert_eq!((standing.dropped, standing.damaged), (0, 0));
    }
}

#[tokio::test]
async fn what_is_too_large_comes_in_parts() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        receiver.judge(move |body| {
            let large = body.clone().logs().len() > 10 || body.clone().spans().len() > 30;
            large.then(|| match protocol {
                Protocol::Http => Answer::http(413, "too large"),
                Protocol::Grpc => Answer::grpc(8, "grpc: received message larger than max"),
            })
        });
        let running = Running::start(&settings(receiver.url(), protocol));
        running.append(0..100);
        running.emptied().await;
        assert_eq!(ids(&receiver), (0..100).collect::<Vec<_>>());
        assert_eq!(receiver.spans().len(), 300);
        let counts = running.counts();
        assert_eq!((counts.taken, counts.refused), (100, 0));
        assert!(counts.requests_refused > 0 && running.aside().is_empty());
    }
}

#[tokio::test]
async fn the_one_bad_entry_is_found_and_set_aside() {
    for protocol in PROTOCOLS {
        let receiver = Receiver::start(protocol).await;
        receiver.judge(move |body| {
            let bad = body.clone().logs().iter().any(|log| {
                let pairs = pairs(&log.attributes);
                pairs.contains(&("event_id", Value::IntValue(33)))
            });
            bad.then(|| match protocol {
                Protocol::Http => Answer::http(400, "33 is bad"),
                Protocol::Grpc => Answer::grpc(3, "33 is bad"),
            })
        });
        let running = Running::start(&settings(receiver.url(), protocol));
        running.append(0..64);
        running.emptied().await;
        let expected: Vec<_> = (0..64).filter(|id| *id != 33).collect();
        let mut came = ids(&receiver);
        came.sort_unstable();
        assert_eq!(came, expected);
        // Spans are not refused, and come once.
        assert_eq!(receiver.spans().len(), 192);
        let counts = running.counts();
        assert_eq!((counts.taken, counts.refused), (63, 1));
        let aside = running.aside();
        assert_eq!(aside.len(), 1);
        assert!(aside[0].contains("33 is bad"), "{}", aside[0]);
    }
}

#[tokio::test]
async fn what_is_rejected_of_a_push_is_counted() {
    let receiver = Receiver::start(Protocol::Grpc).await;
    receiver.answer([
        Answer::taken(Protocol::Grpc, 3, "too old"),
        Answer::taken(Protocol::Grpc, 2, "too long"),
    ]);
    let running = Running::start(&settings(receiver.url(), Protocol::Grpc));
    running.append(0..10);
    running.emptied().await;
    // Nobody says which: as if they were others.
    let counts = running.counts();
    assert_eq!((counts.taken, counts.refused), (5, 5));
    assert_eq!(counts.requests_taken, 1);
}

/// What is in the spool may be of another version, or damaged.
#[tokio::test]
async fn what_is_no_record_is_set_aside() {
    let receiver = Receiver::start(Protocol::Http).await;
    let running = Running::start(&settings(receiver.url(), Protocol::Http));
    let good = bytes(&slow(7));
    let entries = [
        (Lane::Events, &good[..]),
        (Lane::Events, &[0xff][..]),
        (Lane::Metrics, &[0xff][..]),
    ];
    running.spool.append(&entries).unwrap();
    running.emptied().await;
    assert_eq!(ids(&receiver), [7]);
    let counts = running.counts();
    assert_eq!((counts.taken, counts.refused), (1, 2));
    let aside = running.aside();
    assert!(aside[0].contains("not a record") && aside[1].contains("not metrics"));
}
