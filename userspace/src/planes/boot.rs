//! The time since the machine was started, which no clock that is set can move.

use std::{fs, time::Duration};

use anyhow::Context as _;
use nix::time::ClockId;
use serde::{Deserialize, Serialize};

/// Random, and new with each start (Documentation/admin-guide/sysctl/kernel.rst).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Which start of the machine this is.
///
/// # Errors
/// Without /proc.
pub fn id() -> anyhow::Result<String> {
    let id = fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
    Ok(id.trim().to_owned())
}

/// How long the machine has been up, suspended or not.
///
/// # Errors
/// Never, on Linux from 2.6.39 on.
pub fn time() -> anyhow::Result<Duration> {
    let now = ClockId::CLOCK_BOOTTIME.now();
    Ok(now.context("no clock of the time since boot")?.into())
}

/// A moment after which something is to be done. It has passed as soon as the
/// machine is started anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deadline {
    /// The start of the machine that it belongs to.
    boot: String,
    /// Milliseconds since then.
    at: u64,
}

impl Deadline {
    /// So long from now.
    ///
    /// # Errors
    /// Without /proc.
    pub fn after(time_left: Duration) -> anyhow::Result<Self> {
        let at = time()? + time_left;
        Ok(Self {
            boot: id()?,
            at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// The time that is left; 0: it has passed.
    ///
    /// # Errors
    /// Without /proc.
    pub fn left(&self) -> anyhow::Result<Duration> {
        if self.boot != id()? {
            return Ok(Duration::ZERO);
        }
        Ok(Duration::from_millis(self.at).saturating_sub(time()?))
    }
}
