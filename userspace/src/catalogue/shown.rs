//! Signals of modules are shown in guests: each is named by a test, which says
//! so to `shows` of tests/guest/shared.rs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Subject, signals};

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
