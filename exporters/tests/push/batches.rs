//! Batches: by size, by age, and at the end.

use std::time::Duration;

use kldtrace_exporters::push::{Counts, Verdict};
use tokio::time::Instant;

use super::{GRACE, Running, later, numbers, settings};

#[tokio::test(start_paused = true)]
async fn few_entries_wait_for_others_until_they_are_old() {
    let running = Running::start(|_| Verdict::Taken);
    let start = Instant::now();
    for number in 0..5 {
        running.append([number.to_string()]);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.emptied().await;
    let requests = running.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].0, numbers(0..5));
    let age = requests[0].1 - start;
    let wanted = settings().age;
    assert!(
        (wanted..wanted + Duration::from_millis(50)).contains(&age),
        "{age:?}"
    );
    let counts = running.counters.read();
    assert!(counts.last_taken > 1_700_000_000);
    assert_eq!(
        Counts {
            last_taken: 0,
            ..counts
        },
        Counts {
            taken: 5,
            requests_taken: 1,
            ..Counts::default()
        }
    );
}

#[tokio::test(start_paused = true)]
async fn many_entries_go_at_once_and_in_batches_of_their_size() {
    let running = Running::start(|_| Verdict::Taken);
    let start = Instant::now();
    let texts: Vec<_> = (0..200).map(|number| format!("{number:0>1000}")).collect();
    // Each append is a frame, and a batch has whole frames.
    for text in &texts {
        running.append([text.clone()]);
    }
    running.emptied().await;
    let requests = running.requests();
    assert!(requests.iter().all(|(texts, _)| texts.len() <= 10));
    assert_eq!(requests.len(), 20);
    assert!(requests[18].1 - start < settings().age);
    assert_eq!(running.came(), texts);
}

#[tokio::test(start_paused = true)]
async fn what_is_there_at_the_end_still_goes() {
    let running = Running::start(|_| Verdict::Taken);
    running.append(numbers(0..3));
    let start = Instant::now();
    let requests = running.requests.clone();
    let directory = running.end().await;
    assert_eq!(requests.lock().unwrap()[0].0, numbers(0..3));
    assert!(start.elapsed() < settings().age);
    let again = Running::there(directory, |_| Verdict::Taken);
    assert_eq!(again.standing().waiting, 0);
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(again.came(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_does_not_hold_up_the_end() {
    let running = Running::start(|_| later(None));
    running.append(numbers(0..3));
    tokio::time::sleep(Duration::from_mins(1)).await;
    let start = Instant::now();
    let directory = running.end().await;
    assert!(start.elapsed() <= GRACE + Duration::from_millis(10));
    let again = Running::there(directory, |_| Verdict::Taken);
    again.emptied().await;
    assert_eq!(again.came(), numbers(0..3));
}
