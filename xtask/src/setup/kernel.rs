//! What the kernel must offer before the first probe is loaded.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use super::say;
use crate::sh;

const TRACING: &str = "/sys/kernel/tracing";

/// Tracepoint formats are read from tracefs; nothing else is mounted here.
pub fn tracefs() -> Result<()> {
    let start = Instant::now();
    if Path::new(TRACING).join("events").is_dir() {
        say("tracefs", &format!("mounted at {TRACING}"), start);
        return Ok(());
    }
    sh::output(sh::command("mount").args(["-t", "tracefs", "nodev", TRACING])).with_context(
        || {
            format!(
                "setup: tracefs is not mounted at {TRACING}, where kldtrace reads the formats of \
             tracepoints, and cannot be (a container without CAP_SYS_ADMIN?)"
            )
        },
    )?;
    say(
        "tracefs",
        &format!("was not mounted; now it is, at {TRACING}"),
        start,
    );
    Ok(())
}
