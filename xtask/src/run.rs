//! `cargo xtask run`: from a bare clone to live latency tables.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::daemon::{self, ADDRESS, Daemon, SOCKET};
use crate::interrupt::Interrupt;
use crate::setup::{self, Goal};
use crate::sh;

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Args {
    /// Stop the daemon after the first table.
    #[arg(long, conflicts_with = "detach")]
    once: bool,
    /// Leave the daemon running and return (what also happens when stdin or
    /// stdout is not a terminal).
    #[arg(long)]
    detach: bool,
    /// Run kldtrace with these arguments instead, as in
    /// `cargo xtask run -- latency sched`.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the subcommand.
pub fn main(args: &Args) -> Result<ExitCode> {
    setup::prepare(Goal::Build, "run")?;
    let kldtrace = daemon::build()?;
    if !args.arguments.is_empty() {
        let error = Command::new(&kldtrace).args(&args.arguments).exec();
        return Err(error).with_context(|| format!("cannot start {}", kldtrace.display()));
    }
    let interrupt = Interrupt::catch()?;
    if daemon::is_running() {
        println!("A daemon is already running, and this uses it: {SOCKET}");
        show(&kldtrace, &interrupt)?;
        return Ok(ExitCode::SUCCESS);
    }
    let log = sh::target_dir().join("kldtrace.log");
    let daemon = Daemon::start(&kldtrace, None, ADDRESS, &log, &interrupt)?;
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let stays = args.detach || !(args.once || is_terminal);
    tell(&daemon, &log, stays);
    show(&kldtrace, &interrupt)?;
    if stays {
        println!("\nThe daemon stays. To stop it: kill {}", daemon.pid());
        daemon.detach();
        return Ok(ExitCode::SUCCESS);
    }
    if !args.once {
        println!("\nThe daemon runs until Ctrl-C.");
        return hold(daemon, &interrupt);
    }
    stop(daemon)
}

/// Where to look.
fn tell(daemon: &Daemon, log: &Path, stays: bool) {
    let pid = daemon.pid();
    let stop = if stays {
        format!("kill {pid}")
    } else {
        "Ctrl-C".to_owned()
    };
    println!(
        "\nkldtrace is up, process {pid}\n  metrics  http://{ADDRESS}/metrics\n  socket   {SOCKET}\n  \
         log      {}\n  stop     {stop}\n",
        log.display()
    );
}

/// What this kernel serves, and a first live table.
fn show(kldtrace: &Path, interrupt: &Interrupt) -> Result<()> {
    interrupt.check()?;
    let doctor = sh::status(sh::command(kldtrace).arg("doctor"))?;
    if !doctor.success() {
        println!(
            "(Some signals are absent on this kernel; the rest works. The reasons are above.)"
        );
    }
    interrupt.check()?;
    println!("\n$ kldtrace latency sched --duration 3s");
    sh::run(sh::command(kldtrace).args(["latency", "sched", "--duration", "3s"]))
}

/// Waits for a signal to us, or the end of the daemon.
fn hold(mut daemon: Daemon, interrupt: &Interrupt) -> Result<ExitCode> {
    while !interrupt.is_set() {
        if let Some(status) = daemon.ended()? {
            bail!(
                "the daemon ended by itself with {status}; it said:\n{}",
                daemon.said()
            );
        }
        // Being interrupted is how this ends well.
        let _ = interrupt.sleep(Duration::from_millis(200));
    }
    println!();
    stop(daemon)
}

fn stop(mut daemon: Daemon) -> Result<ExitCode> {
    let status = daemon.stop()?;
    if !status.success() {
        bail!(
            "the daemon ended with {status}; it said:\n{}",
            daemon.said()
        );
    }
    if fs::exists(SOCKET).unwrap_or(false) {
        bail!("the daemon left its socket behind: {SOCKET}");
    }
    println!("The daemon stopped.");
    Ok(ExitCode::SUCCESS)
}
