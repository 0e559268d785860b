//! rotel, a receiver of OTLP that somebody else wrote: the tests push to it.
//!
//! PyPI has it as a wheel with one program inside, for Debian 12 and others
//! with glibc 2.34 and Python 3.11's library. It is pinned by its hash and lies
//! in cargo's target folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Goal, debian, installing, say};
use crate::sh;

const STEP: &str = "rotel 0.0.1a15";
/// The one file that will do, as pip wants it.
const REQUIREMENT: &str = "rotel==0.0.1a15 \
     --hash=sha256:2f4117e58410c933e0dc042a268ef738dab2e3a5d63b5831209acdac2a6ddcb7\n";
/// Which file that is, whatever Python asks for it.
const PLATFORM: [&str; 6] = [
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux_2_34_x86_64",
    "--only-binary=:all:",
    "--no-deps",
];
/// The library that the program is linked with; Debian 13 does not have it.
const LIBRARY: &str = "libpython3.11";

/// Installs it, where `goal` needs it. Without it one test is skipped, so that
/// a machine that cannot have it is no failure.
pub fn install(goal: Goal) {
    if goal < Goal::Test {
        return;
    }
    let start = Instant::now();
    let folder = sh::target_dir().join("rotel");
    if is_there(&folder) {
        say(STEP, "there", start);
    } else if let Err(error) = installing(STEP, "installing with pip", || from_pypi(&folder)) {
        let outcome = format!("left out, and the test that pushes to it: {error:#}");
        say(STEP, &outcome, start);
    }
}

/// Whether it is this very file, and starts.
fn is_there(folder: &Path) -> bool {
    let pinned = fs::read_to_string(requirement(folder));
    pinned.is_ok_and(|text| text == REQUIREMENT) && starts(folder).is_ok()
}

fn requirement(folder: &Path) -> PathBuf {
    folder.join("requirement.txt")
}

fn starts(folder: &Path) -> Result<()> {
    let program = folder.join("rotel/rotel-agent");
    sh::output(sh::command(program).arg("--version")).map(drop)
}

fn from_pypi(folder: &Path) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("there is none for {}", std::env::consts::ARCH);
    }
    debian::add(LIBRARY)?;
    // What is there may be another version, or half of this.
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let file = requirement(folder);
    fs::write(&file, REQUIREMENT).with_context(|| format!("cannot write {}", file.display()))?;
    sh::run(&mut pip(folder, &file))?;
    starts(folder)
}

/// Debian's own pip, as another Python may have none.
fn pip(folder: &Path, file: &Path) -> Command {
    let mut command = sh::command("/usr/bin/python3");
    command
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--no-compile", "--root-user-action=ignore"])
        .args(PLATFORM)
        .args(["--require-hashes", "--requirement"])
        .arg(file)
        .arg("--target")
        .arg(folder)
        .stdout(std::io::stderr());
    command
}
