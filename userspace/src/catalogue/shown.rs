//! Signals of modules are shown in guests: each is named by a test, and tests
//! that passed there have shown it on more than one kernel and release.
//!
//! A test names signals to `shows` of tests/guest/shared.rs, and `cargo xtask
//! vm --all --record` writes down what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use super::{Subject, find, signals};

/// Guests that a signal must have been shown in.
const GUESTS: usize = 2;

/// The rows that need a guest.
fn of_modules() -> impl Iterator<Item = &'static str> {
    signals()
        .filter(|signal| matches!(signal.subject, Subject::Zfs | Subject::Wireguard))
        .map(|signal| signal.name)
}

fn below(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The texts of all files below a folder.
fn texts(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .flat_map(|entry| {
            if entry.file_type().unwrap().is_dir() {
                texts(&entry.path())
            } else {
                vec![fs::read_to_string(entry.path()).unwrap()]
            }
        })
        .collect()
}

#[test]
fn every_signal_of_a_module_is_named_by_a_test_in_guests() {
    let tests = texts(&below("tests/guest"));
    let unnamed: Vec<_> = of_modules()
        .filter(|name| {
            let quoted = format!("\"{name}\"");
            !tests.iter().any(|text| text.contains(&quoted))
        })
        .collect();
    assert!(unnamed.is_empty(), "no test in guests shows {unnamed:?}");
}

/// `| `SIGNAL` | `TEST`, … |`
fn row(line: &str) -> Option<&str> {
    Some(line.strip_prefix("| `")?.split_once('`')?.0)
}

#[test]
fn every_signal_of_a_module_was_shown_in_more_than_one_guest() {
    let mut shown: BTreeMap<&str, usize> = of_modules().map(|name| (name, 0)).collect();
    let records = texts(&below("../docs/src/reference/guests"));
    for record in &records {
        let rows: BTreeSet<_> = record.lines().filter_map(row).collect();
        assert!(!rows.is_empty(), "{record}");
        for name in rows {
            assert!(find(name).is_some(), "{name} is no signal any more");
            if let Some(guests) = shown.get_mut(name) {
                *guests += 1;
            }
        }
    }
    shown.retain(|_, guests| *guests < GUESTS);
    assert!(
        shown.is_empty(),
        "shown in too few of {} guests: {shown:?}; `cargo xtask vm --all --record`",
        records.len()
    );
}
