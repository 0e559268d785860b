//! The daemon as seen from outside: where it listens, how it is configured,
//! started and stopped. Everything that xtask assumes of it is in this file.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::interrupt::Interrupt;
use crate::{http, sh};

/// Where a daemon without configuration serves HTTP.
pub const ADDRESS: &str = "127.0.0.1:9750";
/// Where a daemon without configuration has its socket.
pub const SOCKET: &str = "/run/kldtrace/kldtrace.sock";

/// How long attaching everything may take before we give up.
const START: Duration = Duration::from_secs(30);
/// How long a clean stop may take before SIGKILL.
const STOP: Duration = Duration::from_secs(10);

/// Builds the release binary and says where it is.
pub fn build() -> Result<PathBuf> {
    sh::run(sh::cargo().args(["build", "--release", "--package", "kldtrace"]))?;
    Ok(sh::target_dir().join("release/kldtrace"))
}

/// Whether a daemon answers at the usual socket.
pub fn is_running() -> bool {
    UnixStream::connect(SOCKET).is_ok()
}

/// The text of a configuration file.
pub fn config(signals: &[&str], address: &str, socket: &str) -> String {
    let signals: Vec<_> = signals.iter().map(|name| format!("{name:?}")).collect();
    format!(
        "[signals]\nenable = [{}]\n\n[listen]\naddress = {address:?}\nsocket = {socket:?}\n",
        signals.join(", ")
    )
}

/// A daemon that we started; it is stopped when this is dropped.
pub struct Daemon {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
    detached: bool,
}

impl Daemon {
    /// Starts `kldtrace daemon`, with its output in `log`, and waits until it
    /// is healthy.
    pub fn start(
        kldtrace: &Path,
        config: Option<&Path>,
        address: &str,
        log: &Path,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(kldtrace);
        command.arg("daemon");
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        let child = command
            .current_dir(sh::repository())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C is for us: we then stop the daemon with SIGTERM.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", kldtrace.display()))?;
        let address = address
            .parse()
            .with_context(|| format!("{address} is no address"))?;
        let mut daemon = Self {
            child,
            address,
            log: log.to_owned(),
            detached: false,
        };
        daemon.wait_until_healthy(interrupt)?;
        Ok(daemon)
    }

    fn wait_until_healthy(&mut self, interrupt: &Interrupt) -> Result<()> {
        let start = Instant::now();
        let mut last = None;
        while start.elapsed() < START {
            if let Some(status) = self.ended()? {
                bail!(
                    "the daemon ended with {status} before it was healthy; it said:\n{}",
                    self.said()
                );
            }
            match http::get(self.address, "/healthz", "*/*") {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => last = Some(format!("status {}", response.status)),
                Err(error) => last = Some(format!("{error:#}")),
            }
            interrupt.sleep(Duration::from_millis(50))?;
        }
        bail!(
            "the daemon is not healthy after {} s ({}); it said:\n{}",
            START.as_secs(),
            last.unwrap_or_default(),
            self.said()
        )
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it serves HTTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the daemon")
    }

    /// The end of its log.
    pub fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Leaves it running when this is dropped.
    pub fn detach(mut self) {
        self.detached = true;
    }

    /// Stops it with SIGTERM and returns how it ended.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended()? {
            return Ok(status);
        }
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).context("cannot send SIGTERM to the daemon")?;
        let start = Instant::now();
        while start.elapsed() < STOP {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!(
            "the daemon has not stopped {} s after SIGTERM: killing it",
            STOP.as_secs()
        );
        self.child.kill()?;
        self.child.wait().context("cannot wait for the daemon")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.detached
            && let Err(error) = self.stop()
        {
            eprintln!("warning: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml() {
        let text = config(&["sched.*", "tcp.rtt"], "127.0.0.1:1", "/tmp/x.sock");
        assert_eq!(
            text,
            "[signals]\nenable = [\"sched.*\", \"tcp.rtt\"]\n\n\
             [listen]\naddress = \"127.0.0.1:1\"\nsocket = \"/tmp/x.sock\"\n"
        );
    }
}
