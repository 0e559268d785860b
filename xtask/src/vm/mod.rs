//! `cargo xtask vm`: guests with real ZFS and real WireGuard, on several
//! kernels, under emulation. docs/src/guests.md tells more.

mod apt;
mod bench;
mod build;
mod buildroot;
mod held;
mod image;
mod initramfs;
mod matrix;
mod openzfs;
mod plan;
mod qemu;
mod record;
mod scratch;
mod share;

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::setup::{self, Goal};
use crate::sh;
use crate::test::summary::Tests;
use build::Parts;
use held::Held;
use initramfs::Run;
use matrix::{Cell, Clock};

/// Options of `cargo xtask vm`.
#[derive(clap::Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[command(after_help = "Examples:
  cargo xtask vm                           all scenarios in the first guest
  cargo xtask vm --kernel 6.1 --scenario zfs
  cargo xtask vm --scenario wireguard handshake
  cargo xtask vm --all --record            the whole matrix, written down
  cargo xtask vm --shell                   look around; exit ends the guest
  cargo xtask vm --bench                   what probes cost, against bpftrace
  cargo xtask vm --exec 'zpool create p /dev/vda; kldtrace doctor'")]
pub struct Args {
    /// Kernel release: see --list
    #[arg(long)]
    kernel: Option<String>,
    /// OpenZFS release: see --list
    #[arg(long)]
    zfs: Option<String>,
    /// Scenario: a module of userspace/tests/guest, or live for the tests of the
    /// host's own kernel
    #[arg(long)]
    scenario: Option<String>,
    /// Every guest of the matrix, not just the first that fits
    #[arg(long)]
    all: bool,
    /// A shell in the guest, in place of tests
    #[arg(long, conflicts_with_all = ["all", "exec", "scenario"])]
    shell: bool,
    /// A shell command in the guest, in place of tests
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["all", "scenario"])]
    exec: Option<String>,
    /// Write down which test showed which signal: docs/src/reference/guests/
    #[arg(long, conflicts_with_all = ["scenario", "shell", "exec", "bench", "filter"])]
    record: bool,
    /// Measure what probes cost there, against bpftrace and a kldtrace that
    /// --with names, in place of tests
    #[arg(long, conflicts_with_all = ["all", "scenario", "shell", "exec"])]
    bench: bool,
    /// A file to put into /host of the guest
    #[arg(long, value_name = "FILE")]
    with: Vec<PathBuf>,
    /// A program of this machine to take along, such as bpftrace
    #[arg(long, value_name = "NAME")]
    tool: Vec<String>,
    /// List the guests
    #[arg(long)]
    list: bool,
    /// Leave out tests whose names contain this
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
    /// Seconds that a guest may take
    #[arg(long, default_value_t = 900)]
    limit: u64,
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<ExitCode> {
    if args.list {
        for cell in matrix::CELLS {
            println!("--kernel {} --zfs {}", cell.kernel, cell.zfs);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let goal = if args.bench { Goal::Bench } else { Goal::Guest };
    setup::prepare(goal, "vm")?;
    let mut cells = matrix::pick(args.kernel.as_deref(), args.zfs.as_deref())?;
    if !args.all {
        cells.truncate(1);
    }
    if args.bench {
        return measure(args, cells[0]);
    }
    if args.shell || args.exec.is_some() {
        return one_off(args, cells[0]);
    }
    let mut failed = Vec::new();
    let (mut passed, mut skipped) = (0, 0);
    for cell in cells {
        println!("\n==> guest: {cell}");
        let choice = Choice {
            scenario: args.scenario.as_deref(),
            filter: args.filter.as_deref(),
            skip: &args.skip,
        };
        let tests = tests(cell, &choice, args.limit)?;
        if args.record {
            record::write(cell, &args.skip, &tests)?;
        }
        passed += tests.passed();
        skipped += tests.skipped().len();
        for skip in tests.skipped() {
            println!("skipped: {cell}: {}: {}", skip.test, skip.reason);
        }
        failed.extend(tests.failures().map(|test| format!("{cell}: {test}")));
    }
    for name in &failed {
        println!("failed:  {name}");
    }
    println!(
        "{passed} passed, {} failed, {skipped} skipped",
        failed.len()
    );
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The scenarios in the first guest: a step of `cargo xtask test`.
pub fn first_guest() -> Result<Tests> {
    tests(&matrix::CELLS[0], &Choice::default(), 1800)
}

/// Says what a step of the preparation came to.
fn say(step: &str, outcome: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("vm: {step}: {outcome} ({seconds:.1} s)");
}

fn measure(args: &Args, cell: &Cell) -> Result<ExitCode> {
    let parts = build::parts(cell)?;
    let folder = Held::of(cell.kernel)?;
    let run = Run {
        script: bench::SCRIPT.to_owned(),
        programs: bench::programs()?,
        tools: vec!["bpftrace".to_owned()],
        files: args.with.clone(),
        ..Run::default()
    };
    let archive = initramfs::write(&parts, &run, &folder)?;
    let mut lines = Vec::new();
    let limit = Duration::from_secs(args.limit);
    let status = qemu::run(&parts, &archive, &folder, "", limit, |line| {
        println!("{line}");
        lines.push(line.to_owned());
    })?;
    if status != 0 {
        bail!("the guest ended with status {status}");
    }
    println!("\n{}", bench::table(cell, &lines)?);
    Ok(ExitCode::SUCCESS)
}

fn one_off(args: &Args, cell: &Cell) -> Result<ExitCode> {
    let parts = build::parts(cell)?;
    let folder = Held::of(cell.kernel)?;
    let run = Run {
        script: args.exec.clone().unwrap_or_default(),
        programs: vec![kldtrace()?],
        files: args.with.clone(),
        tools: args.tool.clone(),
        shell: args.shell,
        no_modules: false,
    };
    let archive = initramfs::write(&parts, &run, &folder)?;
    if args.shell {
        qemu::shell(&parts, &archive, &folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let limit = Duration::from_secs(args.limit);
    let status = qemu::run(&parts, &archive, &folder, "", limit, |line| {
        println!("{line}");
    })?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
}

/// Which tests are run.
#[derive(Default)]
struct Choice<'a> {
    /// Those of one scenario.
    scenario: Option<&'a str>,
    /// Those whose names contain this.
    filter: Option<&'a str>,
    /// Not those whose names contain one of these.
    skip: &'a [String],
}

/// Guests that share a run's tests, where emulation has one thread for each.
const SIDE_BY_SIDE: usize = 2;

/// Runs scenarios in guests side by side. Shows which tests have ended as it
/// comes, and what they print behind that.
fn tests(cell: &Cell, choice: &Choice<'_>, limit: u64) -> Result<Tests> {
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
        script: share::script(&binary, &shares),
        programs: vec![binary, kldtrace()?],
        ..Run::default()
    };
    let folder = Held::of(cell.kernel)?;
    let archive = initramfs::write(&parts, &run, &folder)?;
    say("tests", "built and packed", start);
    let start = Instant::now();
    let limit = Duration::from_secs(limit);
    let ended: Vec<_> = thread::scope(|scope| {
        let guest = |number| {
            let (parts, archive, folder) = (&parts, &archive, &folder);
            scope.spawn(move || boots(parts, archive, folder, number, limit))
        };
        let guests: Vec<_> = (0..shares.len()).map(guest).collect();
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
        bail!("no test is called that");
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

/// What tests do not need. Debian's kernels zero memory that is taken, and since
/// 6.12 the verifier lets a list grow entry by entry (`push_insn_history` of
/// kernel/bpf/verifier.c), for each of which krealloc zeroes what is left of the
/// list's memory: three quarters of an attachment. And ciphers test themselves.
const QUICKLY: &str = "init_on_alloc=0 cryptomgr.notests";

/// Boots a guest that runs a share of the tests, shows which have ended, and
/// returns all that it said. Now and then emulation crashes a kernel that patches
/// itself; then once more. Any other crash is a failure.
fn boots(
    parts: &Parts,
    archive: &Path,
    folder: &Path,
    share: usize,
    limit: Duration,
) -> (Vec<String>, Result<i32>) {
    let folder = folder.join(share.to_string());
    if let Err(error) = fs::create_dir_all(&folder) {
        return (Vec::new(), Err(error.into()));
    }
    let arguments = format!("{QUICKLY} {}={share}", share::NUMBER);
    for last in [false, false, true] {
        let mut lines = Vec::new();
        let status = qemu::run(parts, archive, &folder, &arguments, limit, |line| {
            if is_progress(line) {
                println!("{line}");
            }
            lines.push(line.to_owned());
        });
        match &status {
            Err(error)
                if !last && (lines.is_empty() || format!("{error:#}").contains(PATCHING)) =>
            {
                println!("booting again: {error:#}");
            }
            _ => return (lines, status),
        }
    }
    unreachable!("the last boot returns")
}

/// The command under test, built as the tests know it.
fn kldtrace() -> Result<PathBuf> {
    let mut build = sh::cargo();
    build.args(["build", "--quiet", "--bin=kldtrace"]);
    sh::run(build.args(sh::HOST))?;
    let path = sh::target_dir().join("debug/kldtrace");
    path.canonicalize()
        .with_context(|| format!("no {}", path.display()))
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
