//! The subcommands that change what is enforced.

use std::{
    ffi::OsStr,
    io::{BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;
use clap::Args;

use super::{POLICY, look_at};
use crate::{
    cli::{log, require_root, stop},
    config::LogFormat,
    planes::{
        change::{Change, Step},
        guard, journal, open,
        roots::Roots,
        saved::Files,
        state::{Act, Lock, Why},
        watch,
    },
};

/// Whoever changes something at the moment is waited for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Arguments of `kldtrace planes apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// The policy
    #[arg(default_value = POLICY)]
    file: PathBuf,
    /// Go back by itself after so many seconds, unless `kldtrace planes confirm` comes
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    confirm: Option<u32>,
    /// Apply what `kldtrace planes check` calls an error
    #[arg(long)]
    force: bool,
}

fn start_log(level: &str) -> anyhow::Result<()> {
    require_root()?;
    log::start(level, LogFormat::Text)
}

/// Who does something, for the node's log.
fn who() -> String {
    let act = Act::now();
    let mut who = act.user;
    for (word, text) in [
        (" (sudo of ", act.sudo_user),
        (" (ssh ", act.ssh_connection),
    ] {
        if let Some(text) = text {
            who.extend([word, &text, ")"]);
        }
    }
    who
}

pub(super) fn apply(
    roots: &Roots,
    root: Option<&Path>,
    arguments: &Apply,
) -> anyhow::Result<ExitCode> {
    start_log("error")?;
    let name = arguments.file.display().to_string();
    let (files, policy) = Files::load(&arguments.file)?;
    if look_at(&mut std::io::stderr().lock(), &policy, &name)? && !arguments.force {
        bail!("{name}: not applied (--force does so all the same)");
    }
    let lock = Lock::wait(roots, PATIENCE)?;
    let mut change = Change::apply(roots, lock, files, policy, arguments.confirm)?;
    let generation = change.state().last;
    if let Some(seconds) = arguments.confirm {
        // Up to where whoever guards it finds it on disk.
        loop {
            match change.step() {
                Ok(Some(Step::Announce) | None) => break,
                Ok(Some(_)) => {}
                Err(error) => return Err(change.abandon(error)),
            }
        }
        let number = generation.to_string();
        let mut call = vec![
            OsStr::new("planes"),
            OsStr::new("guard"),
            OsStr::new(&number),
        ];
        if let Some(root) = root {
            call.extend([OsStr::new("--root"), root.as_os_str()]);
        }
        if let Err(error) = guard::start(&call) {
            return Err(change.abandon(error));
        }
        change.finish()?;
        journal::tell(&format!(
            "planes: generation {generation} ({name}) applied by {}, to be confirmed in {seconds} s",
            who()
        ));
        writeln!(
            std::io::stdout(),
            "generation {generation} applied; it is taken back in {seconds} s, unless \
             `kldtrace planes confirm` comes"
        )?;
    } else {
        change.finish()?;
        journal::tell(&format!(
            "planes: generation {generation} ({name}) applied by {}",
            who()
        ));
        writeln!(std::io::stdout(), "generation {generation} applied")?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn confirm(roots: &Roots) -> anyhow::Result<ExitCode> {
    start_log("error")?;
    let generation = Change::confirm(roots, Lock::wait(roots, PATIENCE)?)?;
    journal::tell(&format!(
        "planes: generation {generation} confirmed by {}",
        who()
    ));
    writeln!(std::io::stdout(), "generation {generation} stays")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn roll_back(roots: &Roots) -> anyhow::Result<ExitCode> {
    start_log("error")?;
    let lock = Lock::wait(roots, PATIENCE)?;
    let state = Change::roll_back(roots, lock, Why::Asked)?.finish()?;
    let told = match &state.current {
        Some(current) => format!("back to generation {}", current.generation),
        None => "back to no policy: nothing is filtered".to_owned(),
    };
    journal::tell(&format!("planes: {told}, by {}", who()));
    writeln!(std::io::stdout(), "{told}")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn restore(roots: &Roots) -> anyhow::Result<ExitCode> {
    start_log("error")?;
    let lock = Lock::wait(roots, PATIENCE)?;
    let mut out = std::io::stdout().lock();
    let Some(change) = Change::restore(roots, lock)? else {
        writeln!(
            out,
            "nothing to restore: no policy is applied, or everything passes by panic-open"
        )?;
        return Ok(ExitCode::SUCCESS);
    };
    let state = change.finish()?;
    match &state.current {
        Some(current) => writeln!(out, "generation {} is enforced", current.generation)?,
        None => writeln!(
            out,
            "the only policy was not confirmed: nothing is filtered"
        )?,
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn panic_open(roots: &Roots, yes: bool) -> anyhow::Result<ExitCode> {
    start_log("error")?;
    if !yes {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            bail!("this lets everything pass on all planes: say --yes");
        }
        write!(
            std::io::stderr(),
            "This lets everything pass on all planes, until a policy is applied again. \
             Go on? [y/N] "
        )?;
        let mut answer = String::new();
        stdin.lock().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            bail!("nothing has changed");
        }
    }
    let failed = open::panic_open(roots);
    journal::tell(&format!(
        "planes: PANIC-OPEN by {}: everything passes",
        who()
    ));
    for error in &failed {
        writeln!(std::io::stderr(), "kldtrace: {error:#}")?;
    }
    if !failed.is_empty() {
        bail!(
            "not all of it worked out: `kldtrace planes status` and `bpftool net` say what is left"
        );
    }
    writeln!(
        std::io::stdout(),
        "everything passes; `kldtrace planes apply` or `rollback` ends that"
    )?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn watch(roots: &Roots) -> anyhow::Result<ExitCode> {
    start_log("info")?;
    let stop = stop::on_signals()?;
    watch::watch(roots, &stop)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn guard(roots: &Roots, generation: u32) -> anyhow::Result<ExitCode> {
    if guard::guard(roots, generation)? {
        journal::tell(&format!(
            "planes: generation {generation} was not confirmed in time: taken back"
        ));
    }
    Ok(ExitCode::SUCCESS)
}
