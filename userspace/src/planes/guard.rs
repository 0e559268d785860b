//! The guardian of a policy that is to be confirmed: a process of its own,
//! which takes it back at its deadline whatever has become of who applied it.

use std::{
    io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::{
    change::Change,
    roots::Roots,
    state::{Applied, Lock, State},
};

/// The deadline is looked at so often, as it is moved once and the machine may
/// have slept.
const TURN: Duration = Duration::from_millis(500);
/// What fails is tried so often again, each after [`TURN`].
const TRIES: u32 = 600;
/// How long whoever changes something is waited for.
const PATIENCE: Duration = Duration::from_mins(1);

/// Starts a guardian: this program, in a session of its own, without terminal.
/// `arguments` are what it is called with.
///
/// # Errors
/// When no process can be started.
pub fn start(arguments: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    // Also when the file was replaced meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: setsid is safe between fork and exec, and touches no memory.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid().map_err(io::Error::from)?;
            Ok(())
        });
    }
    command.spawn().context("cannot start the guardian")?;
    Ok(())
}

/// Waits until a policy is confirmed, or was taken back, or its time is over,
/// and takes it back then. Says whether it did.
///
/// # Errors
/// When it cannot be taken back. It was tried many times.
pub fn guard(roots: &Roots, generation: u32) -> anyhow::Result<bool> {
    let mut tries = TRIES;
    loop {
        match turn(roots, generation) {
            Ok(Some(taken_back)) => return Ok(taken_back),
            Ok(None) => {}
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {
                tries -= 1;
                thread::sleep(TURN);
            }
        }
    }
}

/// Waits a little, or takes the policy back; `None`: there is time left.
fn turn(roots: &Roots, generation: u32) -> anyhow::Result<Option<bool>> {
    let state = State::load(roots)?;
    let applied = unconfirmed(&state, generation);
    let Some(confirm) = applied.and_then(|applied| applied.confirm.as_ref()) else {
        return Ok(Some(false));
    };
    let left = confirm.deadline.left()?;
    if left.is_zero() {
        return take_back(roots, generation).map(Some);
    }
    thread::sleep(left.min(TURN));
    Ok(None)
}

fn take_back(roots: &Roots, generation: u32) -> anyhow::Result<bool> {
    let lock = Lock::wait(roots, PATIENCE)?;
    // Somebody may have been faster.
    if unconfirmed(&State::load(roots)?, generation).is_none() {
        return Ok(false);
    }
    match Change::restore(roots, lock)? {
        Some(change) => change.finish().map(|_| true),
        None => Ok(false),
    }
}

/// A policy that is applied, or about to be, and waits to be confirmed.
fn unconfirmed(state: &State, generation: u32) -> Option<&Applied> {
    let mut policies = state.current.iter().chain(&state.next);
    policies.find(|applied| applied.generation == generation && applied.confirm.is_some())
}
