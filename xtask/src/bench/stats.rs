//! The kernel's own accounts of eBPF run time: a switch that costs some
//! nanoseconds a run, so it is put back as it was.

use std::fs;

use anyhow::{Context, Result};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// `kernel.bpf_stats_enabled` as we want it; put back when this is dropped,
/// which Ctrl-C and failures lead to as well.
pub struct Stats {
    before: String,
}

impl Stats {
    /// Switches the accounts on or off.
    pub fn set(on: bool) -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, if on { "1" } else { "0" })
            .with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Stats {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!(
                "warning: {SWITCH} should be {} again: {error}",
                self.before.trim()
            );
        }
    }
}
