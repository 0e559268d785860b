//! SIGKILL under load.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use kldtrace_exporters::{
    push::Lane,
    spool::{Batch, Spool},
};

use super::{ALL, drain, entry, number, open, settings, standing};

/// Tells the child where the spool is.
const CHILD: &str = "KLDTRACE_TEST_SPOOL";

/// Not a test: what the child does until it is killed. It appends and reads,
/// and says what it has done only once that is so.
#[test]
fn child() {
    let Some(directory) = std::env::var_os(CHILD) else {
        return;
    };
    let (spool, mut readers) =
        Spool::open(settings(Path::new(&directory)), &[("one", ALL)]).unwrap();
    let mut next = std::io::stdin()
        .lock()
        .lines()
        .next()
        .unwrap()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    // One write for each line: a kill must not cut one in two.
    let say = |line: String| std::io::stderr().write_all(line.as_bytes()).unwrap();
    let mut batch = Batch::default();
    loop {
        let entries: Vec<_> = (next..next + 7).map(|one| entry(one, 2000)).collect();
        let entries: Vec<_> = entries.iter().map(|one| (Lane::Events, &one[..])).collect();
        spool.append(&entries).unwrap();
        next += 7;
        say(format!("taken {next}\n"));
        if next % 3 == 0 {
            readers[0].read(50_000, &mut batch).unwrap();
            for entry in batch.entries() {
                say(format!("read {}\n", number(entry.bytes)));
            }
            readers[0].acknowledge();
            say("acknowledged\n".to_owned());
        }
    }
}

#[test]
fn nothing_that_was_taken_is_lost_to_a_hundred_kills() {
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    // The first number that was not said to be taken.
    let mut taken = 0;
    // The last number that was read.
    let mut last: Option<u64> = None;
    for round in 0..100 {
        let mut child = Command::new(&program)
            .args(["--exact", "killed::child", "--nocapture"])
            .env(CHILD, directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Appends that were not said to be taken may be there all the same:
        // new numbers begin well behind them.
        let start = taken + 1_000_000;
        writeln!(child.stdin.take().unwrap(), "{start}").unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let mut repeated = 0;
        let limit = 50 + round * 7 % 400;
        for (count, line) in errors.lines().enumerate() {
            let line = line.unwrap();
            if let Some(next) = line.strip_prefix("taken ") {
                taken = next.parse().unwrap();
            } else if let Some(number) = line.strip_prefix("read ") {
                let number: u64 = number.parse().unwrap();
                if last.is_some_and(|last| number <= last) {
                    repeated += 1;
                } else {
                    follows(last, number);
                    last = Some(number);
                }
            } else {
                assert_eq!(line, "acknowledged", "the child failed: {line}");
            }
            if count == limit {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        // A batch of 50,000 bytes ends with the frame that fills it, its fourth.
        assert!(repeated <= 28, "{repeated} repeated");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (spool, mut reader) = open(directory.path(), ALL);
    for number in drain(&mut reader) {
        if last.is_none_or(|last| number > last) {
            follows(last, number);
            last = Some(number);
        }
    }
    assert!(last.unwrap() + 1 >= taken, "{last:?} {taken}");
    let standing = standing(&spool);
    assert_eq!((standing.dropped, standing.damaged), (0, 0));
}

/// Within a run, numbers have no gap; the next run begins a million later.
fn follows(last: Option<u64>, number: u64) {
    let Some(last) = last else { return };
    assert!(
        number == last + 1 || number >= last + 900_000,
        "{number} after {last}"
    );
}
