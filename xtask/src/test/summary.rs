//! Reads the output of `cargo test -- --show-output`.

use std::collections::{BTreeMap, BTreeSet};

/// What every `test result` line begins with.
const RESULT: &str = "test result: ";
/// What a test prints that cannot run here.
const SKIPPED: &str = "skipped: ";
/// What a test prints that runs once more, and why.
const AGAIN: &str = "again: ";
/// What a test prints with the name of a signal that it shows.
const SHOWS: &str = "shows: ";

/// What follows the message of a panic.
const ENDS_PANIC: [&str; 3] = ["stack backtrace:", "note: ", "---- "];
/// Characters of a line of a panic's message that are kept.
const PANIC_LINE: usize = 300;

/// A test that did not run, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skip {
    /// The test's name; empty if it cannot be told.
    pub test: String,
    /// What it said.
    pub reason: String,
}

/// Whose output a line is.
#[derive(Debug, Default, PartialEq, Eq)]
enum Section {
    /// Between the `test … ok` lines.
    #[default]
    Progress,
    /// Output of tests that passed.
    Successes,
    /// Output of tests that failed, and are not skipped whatever they say.
    Failures,
}

/// What the test binaries said, put together.
#[derive(Debug, Default)]
pub struct Tests {
    ok: usize,
    failed: Vec<String>,
    /// What tests said as they panicked, by name.
    panics: BTreeMap<String, String>,
    skipped: Vec<Skip>,
    /// Tests that ran more than once, each time, and why.
    again: Vec<String>,
    /// Signals and the tests that say that they show them.
    shown: Vec<(String, String)>,
    /// Of the binary that runs now: tests that said `skipped: `, failed tests
    /// by name.
    section: Section,
    test: String,
    names: Vec<String>,
    said: usize,
    /// Whether the lines that come are those of a panic.
    panicking: bool,
}

impl Tests {
    /// Takes the next line of output.
    pub fn line(&mut self, line: &str) {
        let line = line.trim_end();
        if self.panic_line(line) {
            return;
        }
        if let Some(counts) = line.strip_prefix(RESULT) {
            self.result(counts);
        } else if line.starts_with("running ") && line.contains(" test") {
            self.begin();
        } else if line == "successes:" {
            self.enter(Section::Successes);
        } else if line == "failures:" {
            self.enter(Section::Failures);
        } else if let Some(name) = between(line, "---- ", " stdout ----") {
            name.clone_into(&mut self.test);
        } else if let Some(reason) = line.strip_prefix(SKIPPED) {
            if self.section != Section::Failures {
                self.skip(self.test.clone(), reason);
            }
        } else if let Some(reason) = line.strip_prefix(AGAIN) {
            self.again.push(format!("{}: {reason}", self.test));
        } else if let Some(signal) = line.strip_prefix(SHOWS) {
            if self.section == Section::Successes {
                self.shown.push((signal.to_owned(), self.test.clone()));
            }
        } else if let Some((name, outcome)) = progress(line) {
            self.outcome(name, outcome);
        }
    }

    /// Takes the exit status; `how` describes it.
    pub fn end(&mut self, success: bool, how: &str) {
        // A binary that crashed said nothing of its last test.
        if !success && self.failed.is_empty() {
            self.failed.push(how.to_owned());
        }
    }

    /// Takes what other binaries said, all of it read.
    pub fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failed.extend(other.failed);
        self.panics.extend(other.panics);
        self.skipped.extend(other.skipped);
        self.again.extend(other.again);
        self.shown.extend(other.shown);
    }

    /// Tests that ran and passed.
    pub fn passed(&self) -> usize {
        self.ok
    }

    /// Tests that failed.
    pub fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Tests that failed, each with what it said as it first panicked, in one
    /// line.
    pub fn failures(&self) -> impl Iterator<Item = String> {
        self.failed.iter().map(|test| match self.panics.get(test) {
            Some(said) => format!("{test}: {said}"),
            None => test.clone(),
        })
    }

    /// Tests that did not run.
    pub fn skipped(&self) -> &[Skip] {
        &self.skipped
    }

    /// Tests that ran more than once, each time with the reason.
    pub fn again(&self) -> &[String] {
        &self.again
    }

    /// Tests that passed, by the signal that each shows.
    pub fn shown(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut shown: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (signal, test) in &self.shown {
            if !self.skipped.iter().any(|skip| skip.test == *test) {
                shown
                    .entry(signal.as_str())
                    .or_default()
                    .insert(test.as_str());
            }
        }
        shown
    }

    fn enter(&mut self, section: Section) {
        self.section = section;
        self.test.clear();
    }

    /// Takes a line of a failed test's panic; whether it was one. The message
    /// stands between the place and the backtrace or the advice to have one.
    fn panic_line(&mut self, line: &str) -> bool {
        if self.section != Section::Failures || self.test.is_empty() {
            self.panicking = false;
        } else if let Some((_, place)) = line.split_once(" panicked at ") {
            self.panicking = !self.panics.contains_key(&self.test);
            if self.panicking {
                self.panics.insert(self.test.clone(), place.to_owned());
            }
        } else if line.is_empty() || ENDS_PANIC.iter().any(|end| line.starts_with(end)) {
            self.panicking = false;
        } else if self.panicking
            && let Some(said) = self.panics.get_mut(&self.test)
        {
            said.push(' ');
            said.extend(line.trim().chars().take(PANIC_LINE));
        }
        self.panicking
    }

    /// A binary begins; one that crashed before it left no result.
    fn begin(&mut self) {
        self.failed.append(&mut self.names);
        self.said = 0;
        self.enter(Section::Progress);
    }

    fn outcome(&mut self, name: &str, outcome: &str) {
        if outcome == "FAILED" {
            self.names.push(name.to_owned());
        } else if let Some(reason) = outcome.strip_prefix("ignored") {
            let reason = reason.trim_start_matches(", ");
            let reason = if reason.is_empty() { "ignored" } else { reason };
            self.skipped.push(Skip {
                test: name.to_owned(),
                reason: reason.to_owned(),
            });
        } else if let Some(reason) = outcome.strip_prefix(SKIPPED) {
            // With --nocapture the output follows on the same line.
            self.skip(name.to_owned(), reason);
        }
    }

    /// A test may say it for each of its parts: still one test.
    fn skip(&mut self, test: String, reason: &str) {
        let same = |skip: &&mut Skip| !test.is_empty() && skip.test == test;
        if let Some(known) = self.skipped.iter_mut().rev().take(self.said).find(same) {
            known.reason = format!("{}; {reason}", known.reason);
        } else {
            self.skipped.push(Skip {
                test,
                reason: reason.to_owned(),
            });
            self.said += 1;
        }
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; …`: the end of one binary.
    fn result(&mut self, counts: &str) {
        let count = |what: &str| -> usize {
            let words: Vec<_> = counts
                .split([' ', ';'])
                .filter(|word| !word.is_empty())
                .collect();
            let pair = words.windows(2).find(|pair| pair[1] == what);
            pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
        };
        self.ok += count("passed").saturating_sub(self.said);
        // Names get lost where a child process writes between.
        let lost = count("failed").saturating_sub(self.names.len());
        self.failed
            .extend((0..lost).map(|_| "a test whose name got lost in output".to_owned()));
        self.begin();
    }
}

/// `test NAME ... OUTCOME`
fn progress(line: &str) -> Option<(&str, &str)> {
    let (name, outcome) = line.strip_prefix("test ")?.split_once(" ... ")?;
    Some((name.trim_end_matches(" - should panic"), outcome.trim()))
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    line.strip_prefix(before)?.strip_suffix(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(output: &str) -> Tests {
        let mut tests = Tests::default();
        output.lines().for_each(|line| tests.line(line));
        tests
    }

    fn skip(test: &str, reason: &str) -> Skip {
        Skip {
            test: test.to_owned(),
            reason: reason.to_owned(),
        }
    }

    const SHOWN: &str = "\
running 4 tests
test block::latency ... ok
test kvm::exits ... ok
test sched::wait ... ok
test zfs::commit ... ignored, needs a pool

successes:

---- kvm::exits stdout ----
skipped: no /dev/kvm
skipped: no guest

---- sched::wait stdout ----
20 ms seen as 20.1 ms; not one was skipped: fine

successes:
    block::latency
    kvm::exits
    sched::wait

test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn a_test_that_says_skipped_has_not_passed() {
        let tests = read(SHOWN);
        assert_eq!(tests.passed(), 2);
        assert_eq!(
            tests.skipped(),
            [
                skip("zfs::commit", "needs a pool"),
                skip("kvm::exits", "no /dev/kvm; no guest")
            ]
        );
        assert!(tests.failed().is_empty());
    }

    #[test]
    fn binaries_add_up() {
        let tests = read(&SHOWN.repeat(3));
        assert_eq!((tests.passed(), tests.skipped().len()), (6, 6));
    }

    #[test]
    fn what_ran_side_by_side_adds_up() {
        let mut tests = read(SHOWN);
        tests.end(false, "first");
        let mut other = read(&SHOWN.replace("sched", "disk"));
        other.end(false, "second");
        tests.add(other);
        assert_eq!((tests.passed(), tests.skipped().len()), (4, 4));
        assert_eq!(tests.failed(), ["first", "second"]);
    }

    #[test]
    fn a_test_that_ran_again_is_told() {
        let tests = read(
            "running 1 test\ntest a ... ok\nsuccesses:\n---- a stdout ----\n\
             thread 'a' panicked at a.rs:1:1:\nwrong\nstack backtrace:\n\
             again: it was hidden\nsuccesses:\n    a\n\
             test result: ok. 1 passed; 0 failed; 0 ignored\n",
        );
        assert_eq!(tests.again(), ["a: it was hidden"]);
        assert_eq!((tests.passed(), tests.failed().len()), (1, 0));
    }

    #[test]
    fn a_failed_test_is_not_skipped() {
        let tests = read(
            "test a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\n\
             skipped: one part\npanicked\n\nfailures:\n    b\n\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((tests.passed(), tests.skipped().len()), (1, 0));
        assert_eq!(tests.failed(), ["b"]);
    }

    #[test]
    fn what_a_panic_said_is_kept() {
        let tests = read(
            "test a ... FAILED\ntest b ... FAILED\n\nfailures:\n\n---- a stdout ----\n\
             before\n\nthread 'a' (7) panicked at src/x.rs:3:9:\n\
             assertion failed: two\n  left: 1\n right: 2\nstack backtrace:\n   0: f\n\n\
             thread 'other' panicked at src/y.rs:1:1:\nlater\n\n---- b stdout ----\n\
             Error: no panic\n\nfailures:\n    a\n    b\n\n\
             test result: FAILED. 0 passed; 2 failed; 0 ignored\n",
        );
        let failures: Vec<_> = tests.failures().collect();
        let said = "a: src/x.rs:3:9: assertion failed: two left: 1 right: 2";
        assert_eq!(failures, [said, "b"]);
    }

    #[test]
    fn only_tests_that_passed_have_shown_something() {
        let said = |test| format!("---- {test} stdout ----\nshows: x.{test}\nshows: x.all\n");
        let tests = read(&format!(
            "running 3 tests\nsuccesses:\n{}{}skipped: no pool\nsuccesses:\n    a\n    b\n\
             failures:\n{}panicked\nfailures:\n    c\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored\n",
            said("a"),
            said("b"),
            said("c")
        ));
        let shown: Vec<_> = tests.shown().into_iter().collect();
        assert_eq!(shown, [("x.a", ["a"].into()), ("x.all", ["a"].into())]);
    }

    #[test]
    fn a_name_lost_in_output_still_fails() {
        let tests = read("test b ... noise\nFAILED\ntest result: FAILED. 0 passed; 1 failed;\n");
        assert_eq!(tests.failed().len(), 1);
    }

    #[test]
    fn output_on_the_progress_line() {
        let tests = read(
            "test a ... skipped: no root\nok\n\
             test result: ok. 1 passed; 0 failed; 0 ignored\n",
        );
        assert_eq!(
            (tests.passed(), tests.skipped()),
            (0, &[skip("a", "no root")][..])
        );
    }

    #[test]
    fn a_build_failure_is_a_failure() {
        let mut tests = read("");
        tests.end(false, "`cargo test` ended with exit status: 101");
        assert_eq!(tests.failed(), ["`cargo test` ended with exit status: 101"]);
    }

    #[test]
    fn doc_tests_and_expected_panics() {
        let tests = read(
            "test src/lib.rs - bucket (line 3) ... ok\n\
             test big - should panic ... FAILED\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured\n",
        );
        assert_eq!(
            (tests.passed(), tests.failed()),
            (1, &["big".to_owned()][..])
        );
    }
}
