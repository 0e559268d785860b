//! A disk that gives back something else than it got.

use std::{fs, path::Path};

use kldtrace_exporters::push::Lane;
use proptest::prelude::*;

use super::{ALL, LOGS, append, drain, open, segments, standing};

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let mut content = fs::read(path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(path, content).unwrap();
}

#[test]
fn a_hole_in_the_middle_costs_what_was_in_it_and_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..100, 1000);
    append(&spool, Lane::Journal, 100..110, 1000);
    let file = &segments(directory.path())[0];
    let whole = fs::metadata(file).unwrap().len() as usize;
    overwrite(file, whole / 2, &[0x55; 5000]);
    let left = drain(&mut reader);
    let damaged = standing(&spool).damaged;
    assert_eq!(damaged + left.len() as u64, 110);
    // 5,000 bytes touch 5 or 6 entries of about 1,060 bytes.
    assert!((5..=6).contains(&damaged), "{damaged}");
    assert!(left.is_sorted());
    assert_eq!((left[0], left[left.len() - 1]), (0, 109));
}

#[test]
fn a_segment_without_a_good_frame_is_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..50, 50_000);
    let files = segments(directory.path());
    assert!(files.len() >= 3);
    let length = fs::metadata(&files[1]).unwrap().len() as usize;
    fs::write(&files[1], vec![0; length]).unwrap();
    drop((spool, reader));
    let (spool, mut reader) = open(directory.path(), ALL);
    let left = drain(&mut reader);
    assert!(left.len() < 50 && left[left.len() - 1] == 49);
    assert_eq!(standing(&spool).damaged + left.len() as u64, 50);
}

#[test]
fn a_torn_end_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, reader) = open(directory.path(), ALL);
    append(&spool, Lane::Events, 0..3, 100);
    drop((spool, reader));
    let file = &segments(directory.path())[0];
    let content = fs::read(file).unwrap();
    let last = content.len() - 5;
    for cut in last - 140..last {
        fs::write(file, &content[..cut]).unwrap();
        fs::remove_file(directory.path().join("spool/one.cursor")).unwrap();
        let (spool, mut reader) = open(directory.path(), ALL);
        append(&spool, Lane::Events, [3], 100);
        assert_eq!(drain(&mut reader), [0, 1, 3], "{cut}");
        assert_eq!(standing(&spool).damaged, 0);
    }
}

#[test]
fn what_is_damaged_under_a_running_reader_does_not_stop_it() {
    let directory = tempfile::tempdir().unwrap();
    let (spool, mut reader) = open(directory.path(), LOGS);
    append(&spool, Lane::Events, 0..3, 100);
    append(&spool, Lane::Metrics, 3..4, 100);
    let file = &segments(directory.path())[0];
    let length = fs::metadata(file).unwrap().len() as usize;
    overwrite(file, 12, &vec![0; length - 12]);
    assert_eq!(drain(&mut reader), Vec::<u64>::new());
    assert_eq!((standing(&spool).damaged, reader.ahead()), (3, 0));
    append(&spool, Lane::Events, [4], 100);
    assert_eq!(drain(&mut reader), [4]);
    // Shorter than it was.
    append(&spool, Lane::Events, 5..8, 100);
    fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(20)
        .unwrap();
    assert_eq!(drain(&mut reader), Vec::<u64>::new());
    append(&spool, Lane::Events, [8], 100);
    assert_eq!(drain(&mut reader), [8]);
    assert_eq!(standing(&spool).damaged, 6);
}

#[test]
fn strange_files_are_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let spool = directory.path().join("spool");
    fs::create_dir(&spool).unwrap();
    for name in [
        "1.spool",
        "x.spool",
        "00000000000000000001.spool.old",
        "readme",
    ] {
        fs::write(spool.join(name), "mine").unwrap();
    }
    // A segment that a crash left empty, and a cursor that is none.
    fs::write(spool.join("00000000000000000007.spool"), "").unwrap();
    fs::write(spool.join("one.cursor"), "mine").unwrap();
    let (one, mut reader) = open(directory.path(), ALL);
    append(&one, Lane::Events, 0..3, 100);
    assert_eq!(drain(&mut reader), [0, 1, 2]);
    assert_eq!(fs::read(spool.join("1.spool")).unwrap(), b"mine");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever happens to the bytes: what comes out went in, in order and
    /// once, and the rest is counted where something came behind it.
    #[test]
    fn damage_never_invents(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        restart: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path(), ALL);
        append(&first.0, Lane::Events, 0..20, 200);
        let file = segments(directory.path()).remove(0);
        let mut content = fs::read(&file).unwrap();
        for (place, value) in places {
            let at = place.index(content.len());
            content[at] = value;
        }
        let (spool, mut reader) = if restart {
            drop(first);
            fs::write(&file, content).unwrap();
            open(directory.path(), ALL)
        } else {
            fs::write(&file, content).unwrap();
            append(&first.0, Lane::Events, [20], 200);
            first
        };
        let left = drain(&mut reader);
        prop_assert!(left.is_sorted());
        prop_assert!(left.windows(2).all(|two| two[0] < two[1]));
        let all = left.len() as u64 + standing(&spool).damaged;
        if restart {
            prop_assert!(all <= 20);
        } else {
            prop_assert_eq!(all, 21);
        }
    }
}
