//! The systemd journal as a source of log lines, for the spool.
//!
//! ```text
//! journalctl -> export (parser) -> trail -> stage (own, filter, rate, redact, line)
//!            -> batch -> depot: spool, sync, cursor
//! ```

mod batch;
pub mod counters;
pub mod cursor;
mod depot;
pub mod export;
pub mod fields;
pub mod filter;
mod journalctl;
pub mod line;
pub mod own;
pub mod rate;
pub mod redact;
pub mod source;
mod stage;
mod ticks;
mod trail;
pub mod unit;

pub use self::{
    counters::{Counters, Counts},
    own::Own,
    source::{Settings, Since, Source},
};
