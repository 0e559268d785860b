//! `cargo xtask fuzz`: looks for inputs on which a parser does what it must
//! not.
//!
//! The targets are in exporters/src/fuzz.rs and userspace/src/fuzz.rs, their seeds in fuzz/corpus. What a
//! run finds interesting stays in the target folder, and the next goes on from
//! there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::setup::{self, Goal};
use crate::sh;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                          each target for a minute
  cargo xtask fuzz spool_segment --seconds 3600
  cargo xtask fuzz record --input FILE      once more what was found")]
pub struct Args {
    /// Only these targets, which are the folders of fuzz/corpus.
    target: Vec<String>,
    /// Seconds for each target.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    seconds: u32,
    /// Only this input, once.
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

/// Coverage as libFuzzer wants it, and no silent overflow.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// Seconds for each target in `cargo xtask test`: a minute in all.
const SHORT: u32 = 5;

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<ExitCode> {
    setup::prepare(Goal::Test, "fuzz")?;
    let all = targets()?;
    for wanted in &args.target {
        if !all.contains(wanted) {
            bail!("no target {wanted}; there are {}", all.join(", "));
        }
    }
    let program = build()?;
    if let (Some(input), [target]) = (&args.input, &args.target[..]) {
        let input = fs::canonicalize(input).with_context(|| input.display().to_string())?;
        sh::run(command(&program, target)?.arg(input))?;
        return Ok(ExitCode::SUCCESS);
    }
    let targets = if args.target.is_empty() {
        all
    } else {
        args.target.clone()
    };
    run(&program, targets, args.seconds)?;
    Ok(ExitCode::SUCCESS)
}

/// Each target for a moment: a step of `cargo xtask test`.
pub fn shortly() -> Result<()> {
    run(&build()?, targets()?, SHORT)
}

fn folder() -> PathBuf {
    sh::repository().join("fuzz")
}

/// Names of the targets.
fn targets() -> Result<Vec<String>> {
    let corpus = folder().join("corpus");
    let entries = fs::read_dir(&corpus).with_context(|| corpus.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn build() -> Result<PathBuf> {
    let host = sh::output(sh::command("rustc").args(["--print", "host-tuple"]))?;
    let host = host.trim();
    let target = sh::target_dir().join("fuzz");
    let mut command = sh::cargo();
    command
        .args(["build", "--release", "--locked", "--manifest-path"])
        .arg(folder().join("Cargo.toml"))
        // With a target named, build scripts are not counted in.
        .args(["--target", host, "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", FLAGS.join(" "));
    sh::run(&mut command)?;
    Ok(target.join(host).join("release/parsers"))
}

/// Where a target's runs leave what they find.
fn work(target: &str) -> PathBuf {
    sh::target_dir().join("fuzz/work").join(target)
}

fn command(program: &Path, target: &str) -> Result<Command> {
    let work = work(target);
    fs::create_dir_all(&work).with_context(|| work.display().to_string())?;
    let mut command = sh::command(program);
    command.env("KLDTRACE_FUZZ", target).current_dir(work);
    Ok(command)
}

/// Runs targets, two at a time.
fn run(program: &Path, targets: Vec<String>, seconds: u32) -> Result<()> {
    let waiting = Mutex::new(targets.into_iter());
    let next = || waiting.lock().ok()?.next();
    let work = || -> Result<()> {
        while let Some(target) = next() {
            one(program, &target, seconds)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let both = [scope.spawn(work), scope.spawn(work)];
        for each in both {
            match each.join() {
                Ok(done) => done?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(())
    })
}

fn one(program: &Path, target: &str, seconds: u32) -> Result<()> {
    let mut command = command(program, target)?;
    let seeds = folder().join("corpus").join(target);
    fs::create_dir_all(work(target).join("corpus"))?;
    // Targets that write files do so in memory.
    let memory = format!("/dev/shm/kldtrace-fuzz-{target}-{}", std::process::id());
    fs::create_dir_all(&memory).with_context(|| memory.clone())?;
    let output = command
        .env("TMPDIR", &memory)
        .arg("corpus")
        .arg(seeds)
        .arg(format!("-max_total_time={seconds}"))
        // An input that takes longer than 10 s or more than 1 GiB is a finding.
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .output();
    fs::remove_dir_all(&memory).with_context(|| memory.clone())?;
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let number = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim).to_owned()
    };
    if !output.status.success() {
        eprintln!("{said}");
        bail!(
            "{target} fails: the input is named above; once more with \
             `cargo xtask fuzz {target} --input FILE`, below {}",
            work(target).display()
        );
    }
    println!(
        "{target}: {} inputs, {} of them new ways, nothing found",
        number("stat::number_of_executed_units:"),
        number("stat::new_units_added:")
    );
    Ok(())
}
