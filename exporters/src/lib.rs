//! What kldtrace exports and how: the model, one module for each format, how
//! things are pushed, and the TLS of what is served and pushed.
//!
//! Nothing here knows of eBPF, the kernel or the daemon.

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod glob;
pub mod journal;
pub mod loki;
pub mod model;
pub mod otlp;
pub mod prometheus;
pub mod push;
pub mod record;
pub mod spool;
pub mod tls;
mod wire;
