//! What kldtrace exports and how: the model, and one module for each format.
//!
//! Nothing here knows of eBPF, the kernel or the daemon.

pub mod model;
pub mod prometheus;
