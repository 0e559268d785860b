//! The sides of a comparison, started and stopped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Bench;
use super::programs;
use crate::daemon::{self, Daemon};
use crate::sh;

/// Not the usual port, which someone's daemon may have.
const ADDRESS: &str = "127.0.0.1:9759";
/// Short, as a socket's path may have no more than 107 characters.
const SOCKET: &str = "/run/kldtrace-bench.sock";
/// How long a tool may take to attach or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What runs next to the load.
#[derive(Clone, Copy, Debug)]
pub enum Side {
    /// The load alone.
    Nothing,
    /// Our daemon with these signals.
    Kldtrace(&'static [&'static str]),
    /// Our empty program, on `sched_switch`.
    Empty,
    /// A tool of libbpf-tools, with its options.
    Tool(&'static str),
}

impl Side {
    /// As tables call it.
    pub fn name(self) -> String {
        match self {
            Self::Nothing => "nothing attached".to_owned(),
            Self::Kldtrace(signals) => format!("kldtrace {}", signals.join(" ")),
            Self::Empty => "empty program".to_owned(),
            Self::Tool(tool) => tool.to_owned(),
        }
    }
}

/// A side that runs; it is stopped when this is dropped.
pub enum Running {
    /// The load alone.
    Nothing,
    /// Our daemon.
    Daemon(Daemon),
    /// Any other program.
    Tool(Tool),
}

/// A program that runs until SIGINT or the end of its input.
pub struct Tool(Child);

impl Running {
    /// Starts a side and waits until its programs are attached.
    pub fn start(bench: &Bench, side: Side) -> Result<Self> {
        let running = match side {
            Side::Nothing => Self::Nothing,
            Side::Kldtrace(signals) => Self::Daemon(daemon(bench, signals)?),
            Side::Empty => Self::Tool(Tool::start(bench, "bench-empty", true)?),
            Side::Tool(name) => Self::Tool(Tool::start(bench, name, false)?),
        };
        // What attaching leaves to do in the kernel is not the load's.
        bench.interrupt.sleep(Duration::from_millis(500))?;
        Ok(running)
    }

    /// The process that holds the programs.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Nothing => None,
            Self::Daemon(daemon) => Some(daemon.pid()),
            Self::Tool(tool) => Some(tool.0.id()),
        }
    }
}

/// Our daemon with these signals, healthy.
pub fn daemon(bench: &Bench, signals: &[&str]) -> Result<Daemon> {
    let config = bench.dir.join("kldtrace.toml");
    let text = daemon::config(signals, ADDRESS, SOCKET);
    fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
    let log = bench.dir.join("kldtrace.log");
    Daemon::start(
        &bench.kldtrace,
        Some(&config),
        ADDRESS,
        &log,
        &bench.interrupt,
    )
}

impl Tool {
    fn start(bench: &Bench, name: &str, ours: bool) -> Result<Self> {
        let mut command = if ours {
            let mut command = sh::command(&bench.kldtrace);
            command.arg(name);
            command
        } else {
            let mut words = name.split(' ');
            let mut command = sh::command(words.next().unwrap_or(name));
            command.args(words);
            command
        };
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut tool = Self(child);
        tool.wait_until_loaded(bench, name)?;
        Ok(tool)
    }

    fn wait_until_loaded(&mut self, bench: &Bench, name: &str) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.0.try_wait()? {
                bail!("{name} ended with {status} before it had attached its programs");
            }
            if !programs::of_process(self.0.id())?.is_empty() {
                return Ok(());
            }
            bench.interrupt.sleep(Duration::from_millis(50))?;
        }
        bail!(
            "{name} has loaded no program after {} s",
            PATIENCE.as_secs()
        )
    }

    fn stop(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        if self.0.try_wait()?.is_none() {
            kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT)?;
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if self.0.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Tool {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!(
                "warning: process {} was not stopped: {error:#}",
                self.0.id()
            );
        }
    }
}
