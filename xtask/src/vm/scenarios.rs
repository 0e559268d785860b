//! Tests in guests: which ones, in how many guests side by side, and what came
//! of them.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::booted::{self, Booted};
use super::build;
use super::given::{Given, Run};
use super::held::Held;
use super::matrix::{Cell, Clock};
use super::{initramfs, kldtrace, qemu, say, share};
use crate::sh;
use crate::test::summary::Tests;

/// Which tests are run.
#[derive(Default)]
pub struct Choice<'a> {
    /// Those of one scenario.
    pub scenario: Option<&'a str>,
    /// Those whose names contain this.
    pub filter: Option<&'a str>,
    /// Not those whose names contain one of these.
    pub skip: &'a [String],
}

/// Guests that share a run's tests, where emulation has one thread for each.
const SIDE_BY_SIDE: usize = 2;

/// Programs of this machine that tests start, and files that these read.
const TOOLS: [&str; 2] = ["prometheus", "prometheus-alertmanager"];
const READ: &[&str] = &[
    "/usr/share/prometheus/alertmanager/default.tmpl",
    "/usr/share/prometheus/alertmanager/email.tmpl",
];

/// Runs scenarios in guests side by side. Shows which tests have ended as it
/// comes, and what they print behind that.
///
/// # Errors
/// When there is no such test, or nothing to run them with.
pub fn run(cell: &Cell, choice: &Choice<'_>, limit: u64) -> Result<Tests> {
    let parts = build::parts(cell)?;
    let start = Instant::now();
    let live = choice.scenario == Some("live");
    let binary = if live {
        test_binary("live")?
    } else {
        test_binary("guest")?
    };
    let names = listed(&binary, choice, live)?;
    let guests = match parts.clock {
        Clock::Instructions => thread::available_parallelism()?.get().min(SIDE_BY_SIDE),
        // A thread for each of its processors, and a clock that runs on while
        // another guest has ours.
        Clock::Host => 1,
    };
    let shares = share::of(&names, guests);
    let run = Run {
        programs: vec![binary.clone(), kldtrace()?],
        tools: TOOLS.map(str::to_owned).to_vec(),
        read: READ,
        ..Run::default()
    };
    let folder = Held::of(cell.kernel)?;
    let root = initramfs::write(&parts, &folder)?;
    let given = Given::gather(&parts, &root, &run, &folder)?;
    let mut disks = Vec::new();
    for (number, names) in shares.iter().enumerate() {
        let folder = folder.join(number.to_string());
        fs::create_dir_all(&folder)?;
        disks.push(given.disk(&share::script(&binary, names), &folder)?);
    }
    drop(given);
    say("tests", "built and packed", start);
    let booted = booted::guest(parts, root, QUICKLY)?;
    let start = Instant::now();
    let limit = Duration::from_secs(limit);
    let ended: Vec<_> = thread::scope(|scope| {
        let booted = &booted;
        let guests: Vec<_> = disks
            .iter()
            .map(|disk| scope.spawn(move || goes_on(booted, disk, limit)))
            .collect();
        let end =
            |guest: ScopedJoinHandle<'_, _>| guest.join().unwrap_or_else(|e| resume_unwind(e));
        guests.into_iter().map(end).collect()
    });
    say(&format!("guest {cell}"), "ended", start);
    let mut all = Tests::default();
    for (lines, status) in ended {
        let mut tests = Tests::default();
        for line in lines {
            if !is_progress(&line) {
                println!("{line}");
            }
            tests.line(&line);
        }
        match status {
            Ok(status) => tests.end(
                status == 0,
                &format!("the tests ended with status {status}"),
            ),
            Err(error) => tests.end(false, &format!("{error:#}")),
        }
        all.add(tests);
    }
    Ok(all)
}

/// Names of the tests that are chosen, in their order.
fn listed(binary: &Path, choice: &Choice<'_>, live: bool) -> Result<Vec<String>> {
    let scenario = choice.scenario.filter(|_| !live);
    let mut command = sh::command(binary);
    command.args(["--list", "--format=terse"]);
    command.args(choice.filter);
    for name in choice.skip {
        command.args(["--skip", name]);
    }
    let of_scenario = |name: &&str| {
        let (of, _) = name.split_once("::").unwrap_or_default();
        scenario.is_none_or(|scenario| scenario == of)
    };
    let text = sh::output(&mut command)?;
    let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
    let names: Vec<_> = names.filter(of_scenario).map(str::to_owned).collect();
    if names.is_empty() {
        bail!("no test is chosen: scenarios are the modules of userspace/tests/guest, and live");
    }
    Ok(names)
}

/// Whether a line tells of the end of one test.
fn is_progress(line: &str) -> bool {
    line.starts_with("test ") && line.contains(" ... ")
}

/// A kernel that patches its own text writes a breakpoint first, and takes it
/// away when all processors know. Emulation of several lets one run into it
/// afterwards; the kernel, which has forgotten it, crashes with this word.
const PATCHING: &str = "Oops: int3";

/// What tests do not need: memory that is zeroed when it is taken, as Debian's
/// kernels do (two thirds of an attachment, much of it as the verifier's list of
/// what it has seen grows entry by entry: `push_insn_history` of
/// kernel/bpf/verifier.c), and ciphers that test themselves.
const QUICKLY: &str = "init_on_alloc=0 cryptomgr.notests";

/// Lets a guest go on that runs a share of the tests, shows which have ended,
/// and returns all that it said. Now and then emulation crashes a kernel that
/// patches itself; then once more. Any other crash is a failure.
fn goes_on(booted: &Booted, disk: &Path, limit: Duration) -> (Vec<String>, Result<i32>) {
    for last in [false, false, true] {
        let mut lines = Vec::new();
        let status = qemu::run(booted, disk, limit, |line| {
            if is_progress(line) {
                println!("{line}");
            }
            lines.push(line.to_owned());
        });
        match &status {
            Err(error)
                if !last && (lines.is_empty() || format!("{error:#}").contains(PATCHING)) =>
            {
                println!("once more: {error:#}");
            }
            _ => return (lines, status),
        }
    }
    unreachable!("the last run returns")
}

/// Builds a test binary, and says where it is.
fn test_binary(target: &str) -> Result<PathBuf> {
    let mut command = sh::cargo();
    command
        .args(["test", "--quiet", "--no-run", "--message-format=json"])
        .args(sh::HOST)
        .args(["--test", target])
        .stderr(Stdio::inherit());
    let output = command.output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the test {target} does not build");
    }
    executable(&String::from_utf8_lossy(&output.stdout), target)
        .with_context(|| format!("cargo named no test binary {target}"))
}

/// The test binary of that name in cargo's messages.
fn executable(messages: &str, target: &str) -> Option<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == target && message["profile"]["test"] == true)
        .find_map(|message| Some(message["executable"].as_str()?.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_binary_is_in_cargos_messages() {
        let messages = "not json\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"guest\"},\"profile\":{\"test\":false},\"executable\":\"/no\"}\n\
            {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"guest\"},\"profile\":{\"test\":true},\"executable\":\"/t/guest-1\"}\n";
        assert_eq!(executable(messages, "guest"), Some("/t/guest-1".into()));
        assert_eq!(executable(messages, "live"), None);
    }
}
