//! `cargo xtask vm --record`: which test showed which signal in a guest, as a
//! page of the book. `userspace/src/catalogue/shown.rs` compares it with the
//! catalogue.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};

use super::build;
use super::matrix::Cell;
use crate::sh;
use crate::test::summary::Tests;

/// Where the pages are, one for each guest, called by its kernel.
const FOLDER: &str = "docs/src/reference/guests";

/// Writes the page of a guest anew; `left_out` are parts of names.
///
/// # Errors
/// When it cannot be written.
pub fn write(cell: &Cell, left_out: &[String], tests: &Tests) -> Result<()> {
    let parts = build::parts(cell)?;
    let today = sh::output(sh::command("date").args(["--utc", "+%F"]))?;
    let guest = format!("Kernel {}, OpenZFS {}", parts.release, parts.zfs);
    let path = sh::repository()
        .join(FOLDER)
        .join(format!("{}.md", cell.kernel));
    let Some(page) = page(&guest, today.trim(), left_out, tests) else {
        println!("not written: {guest} has shown no signal");
        return Ok(());
    };
    fs::write(&path, page).with_context(|| format!("cannot write {}", path.display()))?;
    println!("written: {}", path.display());
    Ok(())
}

/// The page, to be included below a heading; `None`: no test has shown
/// anything, as of a guest that was ended before its tests were, whose page
/// would take the place of one that says more.
fn page(guest: &str, date: &str, left_out: &[String], tests: &Tests) -> Option<String> {
    let shown = tests.shown();
    if shown.is_empty() {
        return None;
    }
    let mut page = format!(
        "<!-- Written by `cargo xtask vm --record`. -->\n\n## {guest}\n\n\
         {date}: {} passed, {} failed, {} skipped.\n\n",
        tests.passed(),
        tests.failed().len(),
        tests.skipped().len()
    );
    for name in left_out {
        let _ = writeln!(page, "- left out: `{name}`");
    }
    for test in tests.failed() {
        let _ = writeln!(page, "- failed: `{test}`");
    }
    for skip in tests.skipped() {
        let _ = writeln!(page, "- skipped: `{}`: {}", skip.test, skip.reason);
    }
    page.push_str("\n| signal | tests that showed it |\n|---|---|\n");
    for (signal, tests) in shown {
        let tests: Vec<_> = tests.into_iter().map(|test| format!("`{test}`")).collect();
        let _ = writeln!(page, "| `{signal}` | {} |", tests.join(", "));
    }
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_what_passed_and_what_did_not() {
        let mut tests = Tests::default();
        let said = "running 3 tests\ntest c ... FAILED\n\nsuccesses:\n\n\
            ---- a stdout ----\nshows: zfs.x\n\n---- b stdout ----\nskipped: no tcx\n\n\
            successes:\n    a\n    b\n\nfailures:\n    c\n\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored\n";
        said.lines().for_each(|line| tests.line(line));
        assert_eq!(
            page(
                "Kernel 1, OpenZFS 2",
                "2026-11-29",
                &["d::".to_owned()],
                &tests
            )
            .unwrap(),
            "<!-- Written by `cargo xtask vm --record`. -->\n\n## Kernel 1, OpenZFS 2\n\n\
             2026-11-29: 1 passed, 1 failed, 1 skipped.\n\n\
             - left out: `d::`\n- failed: `c`\n- skipped: `b`: no tcx\n\n\
             | signal | tests that showed it |\n|---|---|\n| `zfs.x` | `a` |\n"
        );
    }

    #[test]
    fn a_guest_that_was_ended_has_no_page() {
        let mut tests = Tests::default();
        let said = "running 3 tests\ntest a ... ok\n";
        said.lines().for_each(|line| tests.line(line));
        tests.end(false, "the guest ended early");
        assert_eq!(page("Kernel 1", "2026-11-29", &[], &tests), None);
    }
}
