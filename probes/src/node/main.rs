//! The kernel proper: one module for one subject.
#![no_std]
#![no_main]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod block;
mod cgroup;
mod floor;
mod sched;
mod tcp;

use kldtrace_probes::{accounts, kernel};

kldtrace_probes::object!();
