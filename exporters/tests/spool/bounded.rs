//! The spool has a limit: the oldest go first, and are counted.

use kldtrace_exporters::{
    push::Lane,
    spool::{Batch, Error, MAX_ENTRY, Settings, Spool},
};

use super::{ALL, LOGS, append, drain, entry, open, segments, settings, standing};

/// More than the smallest spool holds.
const MANY: u64 = 1000;
const LENGTH: usize = 20_000;

#[test]
fn the_oldest_go_and_are_counted_exactly() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..MANY, LENGTH);
    let on_disk: u64 = segments(directory.path())
        .iter()
        .map(|file| file.metadata().unwrap().len())
        .sum();
    assert_eq!(on_disk, spool.statistics().bytes);
    assert!(on_disk <= Settings::SMALLEST, "{on_disk}");
    assert!(on_disk > Settings::SMALLEST * 3 / 4, "{on_disk}");
    let before = standing(&spool);
    let left = drain(&mut reader);
    assert_eq!(before.dropped + left.len() as u64, MANY);
    assert_eq!(left, (before.dropped..MANY).collect::<Vec<_>>());
    assert_eq!(before.waiting, left.len() as u64);
    assert_eq!(standing(&spool).damaged, 0);
}

#[test]
fn only_what_a_reader_wants_is_lost_to_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), LOGS);
    append(&spool, Lane::Events, [0], 20);
    append(&spool, Lane::Metrics, 1..MANY, LENGTH);
    assert_eq!(standing(&spool).dropped, 1);
    append(&spool, Lane::Events, [MANY], 20);
    assert_eq!(drain(&mut reader), [MANY]);
    assert_eq!((standing(&spool).dropped, standing(&spool).damaged), (1, 0));
}

#[test]
fn what_a_reader_holds_is_not_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..10, LENGTH);
    let mut batch = Batch::default();
    reader.read(usize::MAX, &mut batch).unwrap();
    assert_eq!(batch.entries().len(), 10);
    append(&spool, Lane::Events, 10..MANY, LENGTH);
    let dropped = standing(&spool).dropped;
    reader.acknowledge();
    let left = drain(&mut reader);
    assert_eq!(left.first(), Some(&(10 + dropped)));
    assert_eq!(10 + dropped + left.len() as u64, MANY);
    assert_eq!(standing(&spool).damaged, 0);
}

#[test]
fn what_went_while_a_reader_was_away_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..10, LENGTH);
    let mut batch = Batch::default();
    reader.read(usize::MAX, &mut batch).unwrap();
    // Held when the process ends: nobody knows what became of them.
    append(&spool, Lane::Events, 10..MANY, LENGTH);
    let dropped = standing(&spool).dropped;
    drop((spool, reader));
    let (spool, mut reader) = open(directory.path(), ALL);
    assert_eq!(drain(&mut reader).first(), Some(&(10 + dropped)));
    assert_eq!(standing(&spool).dropped, 10);
}

#[test]
fn of_what_a_reader_held_only_what_went_is_lost_with_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..60, LENGTH);
    let mut batch = Batch::default();
    reader.read(usize::MAX, &mut batch).unwrap();
    assert_eq!(batch.entries().len(), 60);
    let files = segments(directory.path());
    assert!(files.len() >= 3);
    let mut next = 60;
    while files[0].exists() {
        append(&spool, Lane::Events, [next], LENGTH);
        next += 1;
    }
    assert!(files[1].exists());
    assert_eq!(standing(&spool).dropped, 0);
    drop((spool, reader));
    let (spool, mut reader) = open(directory.path(), ALL);
    let dropped = standing(&spool).dropped;
    assert!((20..30).contains(&dropped), "{dropped}");
    assert_eq!(standing(&spool).waiting, next - dropped);
    assert_eq!(drain(&mut reader), (dropped..next).collect::<Vec<_>>());
    assert_eq!(standing(&spool).damaged, 0);
}

#[test]
fn too_much_at_once_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    let long = entry(1, MAX_ENTRY + 1);
    let error = spool.append(&[(Lane::Events, b"0"), (Lane::Events, &long)]);
    assert!(matches!(error, Err(Error::TooLarge(_))));
    let full = entry(2, MAX_ENTRY);
    let error = spool.append(&[
        (Lane::Events, &full),
        (Lane::Events, &full),
        (Lane::Events, &full),
    ]);
    assert!(matches!(error, Err(Error::TooLarge(_))));
    assert_eq!(drain(&mut reader), Vec::<u64>::new());
    spool.append(&[(Lane::Events, &full)]).unwrap();
    spool.append(&[]).unwrap();
    assert_eq!(drain(&mut reader), [2]);
}

#[test]
fn a_smaller_limit_takes_hold() {
    let directory = tempfile::tempdir().unwrap();
    let large = Settings {
        bytes: 4 * Settings::SMALLEST,
        ..settings(directory.path())
    };
    let (spool, _) = Spool::open(large, &[("one", ALL)]).unwrap();
    append(&spool, Lane::Events, 0..MANY, LENGTH);
    assert!(spool.statistics().bytes > 2 * Settings::SMALLEST);
    drop(spool);
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, [MANY], LENGTH);
    assert!(spool.statistics().bytes <= Settings::SMALLEST);
    let dropped = standing(&spool).dropped;
    assert_eq!(drain(&mut reader), (dropped..=MANY).collect::<Vec<_>>());
}
