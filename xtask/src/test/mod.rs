//! `cargo xtask test`: every check and test, one after the other, with a
//! summary that names what failed and why something was skipped.
//!
//! A test that cannot run here prints a line `skipped: REASON` and returns; it
//! then counts as skipped, not as passed. One that runs once more says so with a
//! line `again: REASON`, which the summary has too. Nothing is asserted about time.

mod dashboards;
mod report;
pub mod summary;

use std::env::consts::ARCH;
use std::io::{self, BufRead, BufReader, Write};
use std::panic::resume_unwind;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Goal};
use crate::sh::HOST;
use crate::{fuzz, sh, vm};
use report::Report;
use summary::Tests;

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only format, lints, unit tests and doc tests: no set-up, no root, no
    /// live kernel.
    #[arg(long)]
    quick: bool,
}

/// Test programs that count the kernel's events, or want it for themselves: one
/// after the other. `guest` would skip all of its tests here.
const LIVE: &[&str] = &[
    "--test=boundaries",
    "--test=plane",
    "--test=planes",
    "--test=live",
];
/// Test programs that share the machine with a guest, which takes one processor.
const BESIDE: &[&str] = &[
    "--test=prometheus",
    "--test=tls",
    "--test=spool",
    "--test=push",
    "--test=loki",
    "--test=otlp",
    "--test=journal",
    "--test=bundle",
];
/// Generated pages of the book, and the argument of `kldtrace docs` for each.
const REFERENCE: [(&str, &str); 3] = [
    ("docs/src/reference/signals.md", "reference"),
    ("docs/src/reference/configuration.md", "config"),
    ("docs/src/reference/cli.md", "cli"),
];

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<ExitCode> {
    if !args.quick {
        setup::prepare(Goal::Test, "test")?;
    }
    let mut report = Report::default();
    report.check("format", || {
        sh::run(sh::cargo().args(["fmt", "--all", "--check"]))
    });
    report.check("lints", || sh::run(&mut clippy()));
    report.check("lints of the probes", || sh::run(&mut clippy_probes()));
    report.tests("unit tests", || {
        tests(&["--lib", "--bins"], &[], print_line)
    });
    report.tests("doc tests", || tests(&["--doc"], &[], print_line));
    if args.quick {
        report.skip(
            "live-kernel tests, guests, dashboards, dependencies, book",
            "--quick leaves them out",
        );
    } else {
        report.tests("live-kernel tests", || {
            tests(LIVE, &["--test-threads=1"], print_line)
        });
        guest_and_beside(&mut report);
        dashboards::run(&mut report);
        report.check("fuzz targets, 5 seconds each", fuzz::shortly);
        report.check("dependencies", dependencies);
        report.skip(
            "cargo deny check advisories",
            "its database is a git repository that a build without internet cannot fetch; \
             where github.com can be reached, run `cargo deny check advisories`",
        );
        report.check("book", book);
        report.check("generated pages of the book", reference);
    }
    Ok(report.finish())
}

fn clippy() -> Command {
    let mut command = sh::cargo();
    command
        .arg("clippy")
        .args(HOST)
        .args(["--all-targets", "--", "-D", "warnings"]);
    command
}

/// As userspace/build.rs builds the probes: core from source, no bpf target
/// in a stable toolchain.
fn clippy_probes() -> Command {
    let mut command = sh::cargo();
    command
        .args([
            "clippy",
            "--package",
            "kldtrace-probes",
            "--release",
            "-Z",
            "build-std=core",
        ])
        .args(["--target", "bpfel-unknown-none", "--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTFLAGS", format!("--cfg=bpf_target_arch=\"{ARCH}\""));
    command
}

/// Runs the guest, and beside it what does not mind; that is shown afterwards.
fn guest_and_beside(report: &mut Report) {
    thread::scope(|scope| {
        let beside = scope.spawn(|| {
            let mut said = Vec::new();
            let tests = tests(BESIDE, &[], |line| {
                said.extend_from_slice(line);
                said.push(b'\n');
                Ok(())
            });
            (said, tests)
        });
        report.tests("tests in a guest with ZFS and WireGuard", vm::first_guest);
        report.tests("tests of exporters, which ran beside the guest", || {
            let (said, tests) = beside.join().unwrap_or_else(|panic| resume_unwind(panic));
            io::stdout().write_all(&said)?;
            tests
        });
    });
}

fn print_line(line: &[u8]) -> io::Result<()> {
    let mut screen = io::stdout();
    screen.write_all(line)?;
    screen.write_all(b"\n")
}

/// Runs `cargo test`, shows its output by lines and reads it along.
fn tests(
    targets: &[&str],
    options: &[&str],
    mut show: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<Tests> {
    let mut command = sh::cargo();
    command
        .args(["test", "--no-fail-fast"])
        .args(HOST)
        .args(targets)
        .args(["--", "--show-output"])
        .args(options)
        .stdout(Stdio::piped());
    let line = sh::line(&command);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start `{line}`"))?;
    let mut tests = Tests::default();
    if let Some(stdout) = child.stdout.take() {
        for text in BufReader::new(stdout).split(b'\n') {
            let text = text.with_context(|| format!("cannot read from `{line}`"))?;
            show(&text)?;
            tests.line(&String::from_utf8_lossy(&text));
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{line}`"))?;
    tests.end(status.success(), &format!("`{line}` ended with {status}"));
    Ok(tests)
}

fn dependencies() -> Result<()> {
    let check = [
        "deny",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ];
    sh::run(sh::cargo().args(check))
}

fn book() -> Result<()> {
    let target = sh::target_dir().join("book");
    sh::run(
        sh::command("mdbook")
            .args(["build", "docs", "--dest-dir"])
            .arg(target),
    )
}

/// The reference in docs/ is what the catalogue says today.
fn reference() -> Result<()> {
    sh::run(sh::cargo().args(["build", "--quiet"]).args(HOST))?;
    let kldtrace = sh::target_dir().join("debug/kldtrace");
    for (page, what) in REFERENCE {
        let now = sh::output(sh::command(&kldtrace).args(["docs", what]))?;
        let book = sh::read(sh::repository().join(page))?;
        if let Some(line) = first_difference(&now, &book) {
            bail!(
                "{page} differs from what it is made from, from line {line} on: \
                 run `cargo xtask run -- docs {what} > {page}`"
            );
        }
    }
    Ok(())
}

/// The number of the first line in which two texts differ.
fn first_difference(a: &str, b: &str) -> Option<usize> {
    if a == b {
        return None;
    }
    let same = a.split('\n').zip(b.split('\n')).take_while(|(a, b)| a == b);
    Some(same.count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named() {
        assert_eq!(first_difference("a\nb\n", "a\nb\n"), None);
        assert_eq!(first_difference("a\nb\n", "a\nc\n"), Some(2));
        assert_eq!(first_difference("a\n", "a\nb\n"), Some(2));
        assert_eq!(first_difference("a", "a\n"), Some(2));
    }
}
