//! `cargo xtask vm`: guests with real ZFS and real WireGuard, on several
//! kernels, under emulation. docs/src/guests.md tells more.

mod apt;
mod bench;
mod booted;
mod build;
mod buildroot;
mod given;
mod held;
mod image;
mod initramfs;
mod libraries;
mod matrix;
mod openzfs;
mod plan;
mod qemu;
mod record;
mod scenarios;
mod scratch;
mod share;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::setup::{self, Goal};
use crate::sh;
use crate::test::summary::Tests;
use booted::Booted;
use given::{Given, Run};
use held::Held;
use matrix::Cell;
use scenarios::Choice;

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
  cargo xtask vm --exec 'truncate -s 1G /tmp/f; zpool create p /tmp/f; kldtrace doctor'")]
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
        let tests = scenarios::run(cell, &choice, args.limit)?;
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
    scenarios::run(&matrix::CELLS[0], &Choice::default(), 1800)
}

/// Says what a step of the preparation came to.
fn say(step: &str, outcome: &str, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    eprintln!("vm: {step}: {outcome} ({seconds:.1} s)");
}

/// A guest for something else than tests, with its kernel's usual arguments.
struct Guest {
    booted: Booted,
    disk: PathBuf,
    _folder: Held,
}

impl Guest {
    fn with(cell: &Cell, run: &Run, script: &str) -> Result<Self> {
        let parts = build::parts(cell)?;
        let folder = Held::of(cell.kernel)?;
        let root = initramfs::write(&parts, &folder)?;
        let disk = Given::gather(&parts, &root, run, &folder)?.disk(script, &folder)?;
        Ok(Self {
            booted: booted::guest(parts, root, "")?,
            disk,
            _folder: folder,
        })
    }

    /// Runs its script, and hands on what it says. Returns the script's status.
    fn run(&self, limit: u64, line: impl FnMut(&str)) -> Result<i32> {
        let limit = Duration::from_secs(limit);
        qemu::run(&self.booted, &self.disk, limit, line)
    }
}

fn measure(args: &Args, cell: &Cell) -> Result<ExitCode> {
    let run = Run {
        programs: bench::programs()?,
        tools: vec!["bpftrace".to_owned()],
        files: args.with.clone(),
        ..Run::default()
    };
    let mut lines = Vec::new();
    let status = Guest::with(cell, &run, bench::SCRIPT)?.run(args.limit, |line| {
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
    let run = Run {
        programs: vec![kldtrace()?],
        files: args.with.clone(),
        tools: args.tool.clone(),
        shell: args.shell,
        ..Run::default()
    };
    let guest = Guest::with(cell, &run, args.exec.as_deref().unwrap_or_default())?;
    if args.shell {
        qemu::shell(&guest.booted, &guest.disk)?;
        return Ok(ExitCode::SUCCESS);
    }
    let status = guest.run(args.limit, |line| println!("{line}"))?;
    Ok(ExitCode::from(u8::try_from(status).unwrap_or(1)))
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
