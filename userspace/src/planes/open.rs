//! Breaking the glass: everything passes.

use std::time::Duration;

use anyhow::Context as _;

use super::{
    attach::held,
    link::empty,
    pins::{Pins, names},
    programs::{Set, remove},
    roots::Roots,
    state::{Act, Lock, State},
};

/// Whoever else is changing something is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Lets everything pass until a policy is applied again: takes the policies
/// from all programs, and the programs from all interfaces. What is known on
/// disk is neither needed nor trusted. Returns what did not work out, which is
/// all tried.
pub fn panic_open(roots: &Roots) -> Vec<anyhow::Error> {
    let pins = Pins::new(roots);
    let mut failed = Vec::new();
    // An apply that hangs must not keep anybody out.
    let lock = Lock::wait(roots, PATIENCE);
    let mut note = |result: anyhow::Result<()>| {
        if let Err(error) = result {
            failed.push(error);
        }
    };
    // First the policies: one update opens all interfaces of an epoch.
    match pins.epochs() {
        Ok(epochs) => {
            for epoch in epochs {
                let set = Set::new(pins.epoch(&epoch), epoch.places);
                note(let_all_pass(&set));
            }
        }
        Err(error) => note(Err(error)),
    }
    match held(&pins) {
        Ok(links) => {
            for held in links {
                note(held.link.detach().context("cannot detach a program"));
                note(remove(&held.pin));
            }
        }
        // One that cannot be opened keeps no other from being removed.
        Err(error) => {
            note(Err(error));
            for name in names(&pins.links()).unwrap_or_default() {
                note(remove(&pins.links().join(name)));
            }
        }
    }
    note(lock.and_then(|lock| {
        let mut state = State::load(roots)?;
        state.opened = Some(Act::now());
        state.next = None;
        state.save(roots, &lock)
    }));
    failed
}

fn let_all_pass(set: &Set) -> anyhow::Result<()> {
    let outer = set.policy_map()?;
    match empty(std::os::fd::AsFd::as_fd(outer.fd())) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
            Err(error).context("cannot take a policy away")
        }
        _ => Ok(()),
    }
}
