//! `kldtrace planes learn`.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use kldtrace_abi::loss::Loss;
use serde_json::json;

use crate::{
    cli::{DaemonAddress, client::Client, log, require_root, stop},
    config::{LogFormat, units},
    planes::{
        learn::{Learner, Passed, insert, remarks},
        pins::Pins,
        roots::Roots,
        saved::Saved,
        state::State,
    },
    signals::planes::Ring,
};

/// Arguments of `kldtrace planes learn`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kldtrace planes learn --duration 1h > /tmp/planes.toml
  diff /etc/kldtrace/planes.toml /tmp/planes.toml

It prints the policy that is applied, with the rules that would have let pass
what was dropped meanwhile, or would have been in audit mode. Read them before
you apply them: not all that knocks should be let in.")]
pub struct Arguments {
    /// How long to listen, unless Ctrl-C comes first: 10m, 1h
    #[arg(long, value_name = "TIME", value_parser = units::duration, default_value = "1h")]
    duration: Duration,
    /// One JSON object: the rules with their counts, and the policy
    #[arg(long)]
    json: bool,
    /// Socket of the daemon that listens, if one does [default: /run/kldtrace/kldtrace.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

/// How often is looked for new packets, and how soon a Ctrl-C is seen.
const LOOK: Duration = Duration::from_millis(500);
const REACTION: Duration = Duration::from_millis(50);
/// All that a daemon can keep.
const ALL: usize = 100_000;

/// Who tells of packets.
enum Teller {
    /// The kernel: nobody else listens.
    Ring(Box<Ring>),
    /// The daemon, which listens.
    Daemon(Box<Client>, u64),
}

/// What was not learned from.
#[derive(Default)]
struct Missed {
    /// Of another policy.
    another: u64,
    /// Not understood.
    unread: u64,
    /// Gone from the daemon before it could be read.
    forgotten: u64,
}

/// Listens, and proposes rules.
pub fn run(roots: &Roots, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    log::start("error", LogFormat::Text)?;
    require_root()?;
    let pins = Pins::new(roots);
    let state = State::load(roots)?;
    let Some(current) = state.current else {
        bail!("no policy is applied, so nothing would be dropped: kldtrace planes apply FILE")
    };
    let saved = Saved::load(roots, current.generation)?;
    let daemon = DaemonAddress {
        socket: arguments.socket.clone(),
        attach: false,
    };
    let mut teller = Teller::find(&pins, &daemon)?;
    let stop = stop::on_signals()?;
    let began = Instant::now();
    writeln!(
        std::io::stderr(),
        "kldtrace: listening for {:?}, or until Ctrl-C",
        arguments.duration
    )?;
    let before = untold(&pins)?;
    let mut learner = Learner::new(&saved.policy);
    let mut missed = Missed::default();
    loop {
        let on = wait(&stop, arguments.duration.saturating_sub(began.elapsed()));
        teller.read(&mut learner, current.generation, &mut missed)?;
        if !on {
            break;
        }
    }
    let untold = untold(&pins)?.saturating_sub(before) + missed.forgotten;
    let proposal = learner.propose();
    let files = |path: &std::path::Path| {
        let mut sets = saved.files.sets.iter();
        let set = sets.find(|(name, _)| name == path);
        let set = set.map(|(_, bytes)| bytes.clone());
        set.ok_or_else(|| std::io::ErrorKind::NotFound.into())
    };
    let policy = insert(&saved.files.text, &saved.policy, &files, &proposal);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let object = json!({
            "generation": current.generation,
            "seconds": began.elapsed().as_secs_f64(),
            "packets": proposal.seen,
            "untold": untold,
            "of_other_policies": missed.another,
            "unread": missed.unread,
            "rules": proposal.rules,
            "no_rule": proposal.left,
            "policy": policy.as_ref().ok(),
        });
        serde_json::to_writer_pretty(&mut out, &object)?;
        writeln!(out)?;
        return Ok(ExitCode::SUCCESS);
    }
    write!(out, "{}", remarks(&proposal, untold))?;
    for (count, what) in [
        (missed.another, "of other policies"),
        (missed.unread, "that are not understood"),
    ] {
        if count > 0 {
            writeln!(out, "# Not looked at: {count} packets {what}.")?;
        }
    }
    match policy {
        Ok(policy) => {
            write!(out, "\n{policy}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            for rule in &proposal.rules {
                writeln!(out, "\n# On the plane {:?}:\n{}", rule.plane, rule.toml)?;
            }
            writeln!(std::io::stderr(), "kldtrace: {why}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

impl Teller {
    /// The kernel, unless the daemon listens there.
    fn find(pins: &Pins, daemon: &DaemonAddress) -> anyhow::Result<Self> {
        if let Some(ring) = Ring::take(pins)? {
            return Ok(Self::Ring(Box::new(ring)));
        }
        let daemon = daemon.daemon("planes")?;
        let daemon = daemon.context(
            "another kldtrace listens to the planes, and no daemon answers at its socket (--socket)",
        )?;
        // From now on.
        let next = daemon.events(None, 0)?.next;
        Ok(Self::Daemon(Box::new(daemon), next))
    }

    /// Takes in what has come.
    fn read(
        &mut self,
        learner: &mut Learner<'_>,
        generation: u32,
        missed: &mut Missed,
    ) -> anyhow::Result<()> {
        let mut note = |learned: Result<(), Passed>| match learned {
            Ok(()) => {}
            Err(Passed::Another) => missed.another += 1,
            Err(Passed::Unread) => missed.unread += 1,
        };
        match self {
            Self::Ring(ring) => {
                for told in ring.read() {
                    note(learner.told(&told, generation));
                }
            }
            Self::Daemon(daemon, after) => {
                let page = daemon.events(Some(*after), ALL)?;
                for event in &page.events {
                    note(learner.event(event, generation));
                }
                missed.forgotten += page.forgotten;
                *after = page.next;
            }
        }
        Ok(())
    }
}

/// Packets that were not told of, since the programs are there.
fn untold(pins: &Pins) -> anyhow::Result<u64> {
    let losses = pins.losses()?;
    let ours = [Loss::PlaneEvent, Loss::Event];
    let untold = losses.into_iter().filter(|(loss, _)| ours.contains(loss));
    Ok(untold.map(|(_, count)| count).sum())
}

/// Waits for the next look; `false`: it is the last one.
fn wait(stop: &AtomicBool, left: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < LOOK {
        if stop.load(Ordering::Relaxed) || start.elapsed() >= left {
            return false;
        }
        thread::sleep(REACTION.min(left));
    }
    true
}
