//! The spool: nothing is lost that it has taken, and what is lost is counted.

mod bounded;
mod damage;
mod disk;
mod killed;
mod model;

use std::path::Path;

use kldtrace_exporters::{
    push::Lane,
    spool::{Batch, Reader, Settings, Spool, Standing},
};

/// Both logs and metrics.
const ALL: &[Lane] = &[Lane::Events, Lane::Journal, Lane::Metrics];
const LOGS: &[Lane] = &[Lane::Events, Lane::Journal];

fn settings(directory: &Path) -> Settings {
    Settings {
        directory: directory.join("spool"),
        bytes: Settings::SMALLEST,
        sync: None,
    }
}

fn open(directory: &Path, lanes: &[Lane]) -> (Spool, Reader) {
    let (spool, readers) = Spool::open(settings(directory), &[("one", lanes)]).unwrap();
    (spool, readers.into_iter().next().unwrap())
}

/// Entry `number`, about `length` bytes long.
fn entry(number: u64, length: usize) -> Vec<u8> {
    let mut bytes = format!("{number} ").into_bytes();
    bytes.resize(length.max(bytes.len()), b'.');
    bytes
}

fn number(bytes: &[u8]) -> u64 {
    let digits = bytes.split(|byte| *byte == b' ').next().unwrap();
    std::str::from_utf8(digits).unwrap().parse().unwrap()
}

fn append(spool: &Spool, lane: Lane, numbers: impl IntoIterator<Item = u64>, length: usize) {
    for number in numbers {
        spool.append(&[(lane, &entry(number, length))]).unwrap();
    }
}

/// Reads and acknowledges all that is there.
fn drain(reader: &mut Reader) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut batch = Batch::default();
    loop {
        reader.read(100_000, &mut batch).unwrap();
        if batch.is_empty() {
            return numbers;
        }
        numbers.extend(batch.entries().map(|entry| number(entry.bytes)));
        reader.acknowledge();
    }
}

fn standing(spool: &Spool) -> Standing {
    spool.statistics().readers[0].1
}

/// Files of segments, in order.
fn segments(directory: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(directory.join("spool")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "spool"));
    files.sort();
    files
}

#[test]
fn what_is_appended_comes_out_once_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..10, 20);
    let many: Vec<_> = (10..5000).map(|number| entry(number, 300)).collect();
    let many: Vec<_> = many
        .iter()
        .map(|bytes| (Lane::Journal, &bytes[..]))
        .collect();
    spool.append(&many).unwrap();
    assert_eq!(standing(&spool).waiting, 5000);
    assert_eq!(drain(&mut reader), (0..5000).collect::<Vec<_>>());
    assert_eq!(drain(&mut reader), Vec::<u64>::new());
    assert_eq!(standing(&spool), Standing::default());
    append(&spool, Lane::Events, [5000], 20);
    assert_eq!(drain(&mut reader), [5000]);
}

#[test]
fn what_is_not_acknowledged_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..3, 20);
    let mut batch = Batch::default();
    reader.read(1, &mut batch).unwrap();
    assert_eq!(batch.entries().len(), 1);
    reader.acknowledge();
    reader.read(1 << 20, &mut batch).unwrap();
    assert_eq!(batch.entries().len(), 2);
    drop((spool, reader));
    let (spool, mut reader) = open(directory.path(), ALL);
    assert_eq!(standing(&spool).waiting, 2);
    assert_eq!(drain(&mut reader), [1, 2]);
}

#[test]
fn each_reader_has_its_own_pace_and_lanes() {
    let directory = tempfile::tempdir().unwrap();
    let readers = [("loki", LOGS), ("otlp", ALL)];
    let (spool, mut open) = Spool::open(settings(directory.path()), &readers).unwrap();
    append(&spool, Lane::Events, 0..2, 20);
    append(&spool, Lane::Metrics, 2..4, 20);
    append(&spool, Lane::Journal, 4..5, 20);
    assert_eq!(drain(&mut open[0]), [0, 1, 4]);
    let standings: Vec<_> = spool.statistics().readers;
    assert_eq!(
        standings
            .iter()
            .map(|(name, one)| (*name, one.waiting))
            .collect::<Vec<_>>(),
        [("loki", 0), ("otlp", 5)]
    );
    assert_eq!(drain(&mut open[1]), [0, 1, 2, 3, 4]);
    // Metrics alone are nothing for Loki, and nothing that it waits for.
    append(&spool, Lane::Metrics, 5..6, 20);
    assert_eq!(open[0].ahead(), 0);
    assert!(open[1].ahead() > 0);
}

#[test]
fn what_everybody_has_read_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..30, 100_000);
    assert!(segments(directory.path()).len() > 4);
    assert_eq!(drain(&mut reader).len(), 30);
    assert_eq!(segments(directory.path()).len(), 1);
    assert!(spool.statistics().bytes < 600_000);
}

#[test]
fn a_reader_that_is_new_begins_with_the_oldest() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..3, 20);
    drop((spool, reader));
    let readers = [("one", ALL), ("two", ALL)];
    let (_spool, mut open) = Spool::open(settings(directory.path()), &readers).unwrap();
    assert_eq!(drain(&mut open[1]), [0, 1, 2]);
}

#[test]
fn two_processes_never_share_one() {
    let directory = tempfile::tempdir().unwrap();
    let (_spool, _reader) = open(directory.path(), ALL);
    let error = Spool::open(settings(directory.path()), &[]).unwrap_err();
    assert!(
        error.to_string().ends_with("another running kldtrace"),
        "{error}"
    );
}

#[tokio::test]
async fn who_waits_is_woken() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), LOGS);
    let waiting = tokio::spawn(async move { reader.readable().await });
    tokio::task::yield_now().await;
    append(&spool, Lane::Metrics, [0], 20);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    append(&spool, Lane::Events, [1], 20);
    assert!(waiting.await.unwrap().unwrap() > 0);
}
