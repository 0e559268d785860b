//! Receivers that do not take anything for a while, or for ever.

use std::time::Duration;

use kldtrace_exporters::push::Verdict;
use tokio::time::Instant;

use super::{Running, later, numbers};

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_receiver_costs_nothing_but_time() {
    let back = Instant::now() + Duration::from_hours(1);
    let running = Running::start(move |_| {
        if Instant::now() < back {
            later(None)
        } else {
            Verdict::Taken
        }
    });
    for second in 0..3600 {
        running.append(numbers(second * 10..second * 10 + 10));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    running.emptied().await;
    let (tries, taken): (Vec<_>, Vec<_>) = running
        .requests()
        .into_iter()
        .partition(|(_, at)| *at < back);
    // Waits double up to a minute, and half of each is chance.
    assert!((60..=135).contains(&tries.len()), "{}", tries.len());
    let came: Vec<_> = taken.into_iter().flat_map(|(texts, _)| texts).collect();
    assert_eq!(came, numbers(0..36_000));
    let standing = running.standing();
    assert_eq!((standing.dropped, standing.damaged), (0, 0));
    let counts = running.counters.read();
    assert_eq!((counts.taken, counts.refused), (36_000, 0));
    assert_eq!(counts.requests_later, tries.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_asks_for_time_gets_it() {
    let mut answers = vec![later(Some(120)), later(Some(40))].into_iter();
    let running = Running::start(move |_| answers.next().unwrap_or(Verdict::Taken));
    running.append(numbers(0..3));
    running.emptied().await;
    let at: Vec<_> = running.requests().into_iter().map(|(_, at)| at).collect();
    let waited = |from: usize| (at[from + 1] - at[from]).as_secs_f64();
    assert_eq!(at.len(), 3);
    assert!((120.0..133.0).contains(&waited(0)), "{}", waited(0));
    assert!((40.0..45.0).contains(&waited(1)), "{}", waited(1));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_never_ready_fills_the_spool_and_no_more() {
    let running = Running::start(|_| later(None));
    let text = "x".repeat(10_000);
    for number in 0..2000 {
        running.append([format!("{number} {text}")]);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let statistics = running.spool.statistics();
    assert!(statistics.bytes <= kldtrace_exporters::spool::Settings::SMALLEST);
    let standing = running.standing();
    assert_eq!(standing.dropped + standing.waiting, 2000);
    assert!(standing.dropped > 1000, "{standing:?}");
    // One batch is in memory, and it is always the same.
    let requests = running.requests();
    assert!(requests.len() > 1);
    assert!(requests.windows(2).all(|two| two[0].0 == two[1].0));
}

#[tokio::test(start_paused = true)]
async fn a_restart_repeats_one_batch_at_most() {
    let mut directory = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let mut came = Vec::new();
    for round in 0..20_u32 {
        let mut left = round % 4;
        let running = Running::there(directory, move |_| {
            left = left.saturating_sub(1);
            if left == 0 {
                later(None)
            } else {
                Verdict::Taken
            }
        });
        for number in round * 30..round * 30 + 30 {
            running.append([format!("{number:0>1000}")]);
        }
        // Taken, perhaps, but the answer never arrived.
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 3)).await;
        running.task.abort();
        let _ = running.task.await;
        came.extend(running.requests.lock().unwrap().clone());
        directory = running.directory;
        drop(running.spool);
    }
    let last = Running::there(directory, |_| Verdict::Taken);
    last.emptied().await;
    came.extend(last.requests());
    let mut next = 0;
    for (texts, _) in came {
        for text in &texts {
            let number: u32 = text.parse().unwrap();
            assert!(number <= next, "{number} after {next}");
            assert!(next - number <= 10, "{number} again after {next}");
            next = next.max(number + 1);
        }
    }
    assert_eq!(next, 600);
}
