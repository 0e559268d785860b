//! A receiver that is away for a while, with the spool before it.

use std::time::{Duration, Instant};

use kldtrace_exporters::loki::{Format, Loki};

use super::{
    double::Double,
    settings,
    way::{Way, again},
};

const RATE: u64 = 5000;
/// Ten minutes, scaled.
const AWAY: u64 = 6;

#[tokio::test]
async fn every_event_of_an_outage_arrives_once_and_in_order() {
    let first = Double::start();
    let port = first.port;
    let mut way = Way::to(Loki::new(settings(first.url(), Format::Protobuf)).unwrap());
    let start = Instant::now();
    let mut before = Some(first);
    let mut stored = Vec::new();
    while start.elapsed() < Duration::from_secs(AWAY + 1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        way.append_until(RATE * start.elapsed().as_millis() as u64 / 1000);
        if start.elapsed() > Duration::from_secs(1)
            && let Some(double) = before.take()
        {
            // What it has of a push that is not answered is known after all.
            stored.push(double.stored());
        }
    }
    let (sent, counts) = (way.appended(), way.counters.read());
    assert!(
        counts.requests_later > 0 && counts.taken < sent / 2,
        "{counts:?}"
    );
    let back = Double::at(port);
    way.emptied().await;
    stored.push(back.stored());
    let all = stored.iter().flat_map(|stored| stored.values().flatten());
    let again = again(all, sent);
    // One push may have arrived whose answer did not.
    assert!(again < 1500, "{again} repeated");
    println!(
        "{sent} events, {again} repeated, {} tries",
        counts.requests_later
    );
}
