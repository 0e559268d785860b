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
/// When it cannot be taken back. It was tried for a minute.
pub fn guard(roots: &Roots, generation: u32) -> anyhow::Result<bool> {
    loop {
        let state = State::load(roots)?;
        let Some(applied) = unconfirmed(&state, generation) else {
            return Ok(false);
        };
        let left = match &applied.confirm {
            Some(confirm) => confirm.deadline.left()?,
            None => return Ok(false),
        };
        if left.is_zero() {
            break;
        }
        thread::sleep(left.min(TURN));
    }
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
