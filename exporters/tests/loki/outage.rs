//! A receiver that is away for a while, with the spool before it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use kldtrace_exporters::{
    loki::{Format, Loki},
    push::{self, Aside, Counters, Delivery, Lane},
    spool::{self, Spool},
};
use tokio::sync::watch;

use super::{bytes, double::Double, now, settings, slow};

const RATE: u64 = 5000;
/// Ten minutes, scaled.
const AWAY: u64 = 6;

#[tokio::test]
async fn every_event_of_an_outage_arrives_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let first = Double::start();
    let port = first.port;
    let wanted = spool::Settings {
        directory: directory.path().to_owned(),
        bytes: 64 << 20,
        sync: None,
    };
    let (spool, readers) = Spool::open(wanted, &[("loki", &[Lane::Events])]).unwrap();
    let counters = Arc::new(Counters::default());
    let delivery = Delivery {
        name: "loki",
        reader: readers.into_iter().next().unwrap(),
        destination: Loki::new(settings(first.url(), Format::Protobuf)).unwrap(),
        settings: push::Settings {
            bytes: 256 << 10,
            age: Duration::from_millis(100),
            longest_wait: Duration::from_secs(1),
        },
        counters: counters.clone(),
        aside: Arc::new(Aside::new(directory.path().join("refused.jsonl"), 1 << 20)),
    };
    let (_stop, stopped) = watch::channel(false);
    let task = tokio::spawn(delivery.run(stopped, Duration::ZERO));

    let start = Instant::now();
    let mut sent = 0;
    let mut before = Some(first);
    let mut stored = Vec::new();
    while start.elapsed() < Duration::from_secs(AWAY + 1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let due = RATE * start.elapsed().as_millis() as u64 / 1000;
        let records: Vec<_> = (sent..due).map(|id| bytes(&slow(now(), id))).collect();
        let entries: Vec<_> = records.iter().map(|one| (Lane::Events, &one[..])).collect();
        spool.append(&entries).unwrap();
        sent = due;
        if start.elapsed() > Duration::from_secs(1)
            && let Some(double) = before.take()
        {
            // What it has of a push that is not answered is known after all.
            stored.push(double.stored());
        }
    }
    let counts = counters.read();
    assert!(
        counts.requests_later > 0 && counts.taken < sent / 2,
        "{counts:?}"
    );
    let back = Double::at(port);
    let standing = || spool.statistics().readers[0].1;
    while standing().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    task.abort();
    stored.push(back.stored());
    let ids = stored.iter().flat_map(|stored| stored.values().flatten());
    let mut next = 0;
    let mut again = 0;
    for entry in ids {
        let id: u64 = entry.metadata["event_id"].parse().unwrap();
        if id < next {
            again += 1;
            continue;
        }
        assert_eq!(id, next);
        next += 1;
    }
    assert_eq!(next, sent);
    assert_eq!((standing().dropped, standing().damaged), (0, 0));
    // One push may have arrived whose answer did not.
    assert!(again < 1500, "{again} repeated");
    let counts = counters.read();
    assert_eq!((counts.taken, counts.refused), (sent, 0));
    println!(
        "{sent} events, {again} repeated, {} tries",
        counts.requests_later
    );
}
