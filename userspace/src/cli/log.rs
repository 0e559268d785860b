//! What kldtrace says on standard error while it works.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::EnvFilter;

use crate::config::LogFormat;

/// Starts the log. `RUST_LOG` is for those who look for a fault in one
/// module, and goes before `level`.
///
/// # Errors
/// When `RUST_LOG` is not a filter.
pub fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(filter) => EnvFilter::try_new(filter)?,
        Err(_) => EnvFilter::new(level),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
