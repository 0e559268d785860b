//! Headings and times of the steps, and the summary at the end.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use super::summary::{Skip, Tests};

/// What came of the steps so far; a check counts as one test.
#[derive(Default)]
pub struct Report {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<Skip>,
    again: Vec<String>,
}

impl Report {
    /// Runs a step that either passes or fails.
    pub fn check(&mut self, step: &str, run: impl FnOnce() -> Result<()>) {
        let start = heading(step);
        match run() {
            Ok(()) => {
                self.passed += 1;
                ending(step, "passed", start);
            }
            Err(error) => {
                self.failed.push(format!("{step}: {error:#}"));
                ending(step, &format!("FAILED: {error:#}"), start);
            }
        }
    }

    /// Runs a step that consists of tests.
    pub fn tests(&mut self, step: &str, run: impl FnOnce() -> Result<Tests>) {
        let start = heading(step);
        match run() {
            Ok(tests) => {
                let (passed, failed, skipped) =
                    (tests.passed(), tests.failed().len(), tests.skipped().len());
                self.passed += passed;
                self.failed
                    .extend(tests.failures().map(|test| format!("{step}: {test}")));
                self.skipped.extend_from_slice(tests.skipped());
                self.again.extend_from_slice(tests.again());
                ending(step, &counts(passed, failed, skipped), start);
            }
            Err(error) => {
                self.failed.push(format!("{step}: {error:#}"));
                ending(step, &format!("FAILED: {error:#}"), start);
            }
        }
    }

    /// Notes what is left out, and why.
    pub fn skip(&mut self, what: &str, reason: &str) {
        println!("\n==> {what}\n<== {what}: skipped: {reason}");
        self.skipped.push(Skip {
            test: what.to_owned(),
            reason: reason.to_owned(),
        });
    }

    /// Prints the summary; success if nothing failed.
    pub fn finish(self) -> ExitCode {
        print!("\n==> summary\n{}", self.summary());
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }

    fn summary(&self) -> String {
        let failed = self.failed.iter().map(|name| format!("failed:  {name}\n"));
        let again = self.again.iter().map(|name| format!("again:   {name}\n"));
        let skipped = self.skipped.iter().map(|Skip { test, reason }| {
            if test.is_empty() {
                format!("skipped: {reason}\n")
            } else {
                format!("skipped: {test}: {reason}\n")
            }
        });
        let last = counts(self.passed, self.failed.len(), self.skipped.len());
        let lines = skipped.chain(again).chain(failed);
        lines.chain([format!("{last}\n")]).collect()
    }
}

fn counts(passed: usize, failed: usize, skipped: usize) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

fn heading(step: &str) -> Instant {
    println!("\n==> {step}");
    Instant::now()
}

fn ending(step: &str, outcome: &str, start: Instant) {
    println!(
        "<== {step}: {outcome} ({:.1} s)",
        start.elapsed().as_secs_f64()
    );
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn the_last_line_counts_checks_and_tests() {
        let mut report = Report::default();
        report.check("format", || Ok(()));
        report.check("lints", || Err(anyhow!("one warning")));
        report.tests("unit tests", || {
            let mut tests = Tests::default();
            for line in [
                "test a ... ok",
                "test b ... FAILED",
                "test c ... ignored, needs two machines",
                "successes:",
                "---- a stdout ----",
                "again: it was hidden",
                "failures:",
                "---- b stdout ----",
                "thread 'b' (1) panicked at b.rs:1:2:",
                "on purpose",
                "note: run with backtrace",
                "test result: FAILED. 1 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out",
            ] {
                tests.line(line);
            }
            tests.end(false, "cargo test ended with 101");
            Ok(tests)
        });
        report.skip("advisories", "no internet");
        assert_eq!(
            report.summary(),
            "skipped: c: needs two machines\n\
             skipped: advisories: no internet\n\
             again:   a: it was hidden\n\
             failed:  lints: one warning\n\
             failed:  unit tests: b: b.rs:1:2: on purpose\n\
             2 passed, 2 failed, 2 skipped\n"
        );
    }
}
