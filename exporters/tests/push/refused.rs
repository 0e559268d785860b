//! Entries that a receiver will never take.

use std::{collections::HashSet, time::Duration};

use kldtrace_exporters::push::{Counts, Verdict};
use proptest::prelude::*;

use super::{Running, numbers};

fn refuse(texts: &[String], bad: &HashSet<String>) -> Verdict {
    let found = texts.iter().find(|text| bad.contains(*text));
    found.map_or(Verdict::Taken, |text| Verdict::Refused {
        why: format!("{text} is too old"),
    })
}

async fn delivered(count: u32, bad: HashSet<String>) -> (Vec<String>, Counts, Vec<String>, usize) {
    let all = bad.clone();
    let running = Running::start(move |texts| refuse(texts, &all));
    running.append(numbers(0..count));
    running.emptied().await;
    let requests = running.requests();
    let taken = requests
        .iter()
        .filter(|(texts, _)| refuse(texts, &bad) == Verdict::Taken);
    let taken: Vec<_> = taken.flat_map(|(texts, _)| texts.clone()).collect();
    let aside = std::fs::read_to_string(running.directory.path().join("refused.jsonl"));
    let aside = aside.unwrap_or_default();
    let why = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["why"].as_str().unwrap().to_owned()
    };
    let aside = aside.lines().map(why).collect();
    (taken, running.counters.read(), aside, requests.len())
}

#[tokio::test(start_paused = true)]
async fn the_one_bad_entry_is_found_and_set_aside() {
    let bad = HashSet::from(["333".to_owned()]);
    let (taken, counts, aside, requests) = delivered(1000, bad).await;
    let mut expected = numbers(0..1000);
    expected.remove(333);
    assert_eq!(taken, expected);
    assert_eq!(aside, ["333 is too old"]);
    assert_eq!((counts.taken, counts.refused), (999, 1));
    // Two for each halving, and no more.
    assert!(requests <= 21, "{requests}");
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_refuses_of_a_push_it_took_is_counted() {
    let running = Running::start(|_| Verdict::Partly {
        refused: 2,
        why: "two are bad".to_owned(),
    });
    running.append(numbers(0..5));
    running.emptied().await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(running.came(), numbers(0..5));
    let counts = running.counters.read();
    assert_eq!((counts.taken, counts.refused), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_warning_costs_nothing() {
    let running = Running::start(|_| Verdict::Partly {
        refused: 0,
        why: "use another name".to_owned(),
    });
    running.append(numbers(0..5));
    running.emptied().await;
    assert_eq!(running.came(), numbers(0..5));
    let counts = running.counters.read();
    assert_eq!((counts.taken, counts.refused), (5, 0));
    assert_eq!(counts.requests_taken, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn all_but_the_bad_arrive_once_and_in_order(
        count in 1..200u32,
        bad in proptest::collection::hash_set(0..200u32, 0..30),
    ) {
        let bad: HashSet<_> = bad.into_iter().filter(|one| *one < count).map(|one| one.to_string()).collect();
        let mut expected = numbers(0..count);
        expected.retain(|text| !bad.contains(text));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let refused = bad.len();
        let (taken, counts, aside, _) = runtime.block_on(delivered(count, bad));
        prop_assert_eq!(counts.taken, expected.len() as u64);
        prop_assert_eq!(taken, expected);
        prop_assert_eq!((counts.refused, aside.len()), (refused as u64, refused));
    }
}
