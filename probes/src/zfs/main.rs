//! OpenZFS: one module for one subject.
#![no_std]
#![no_main]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod account;
mod frames;
mod ops;
mod reports;
mod stages;
mod sync;
mod taskq;
mod threads;
mod vdev;
mod zvol;

use kldtrace_probes::{accounts, atomic, kernel, record::record, slots, storage};

kldtrace_probes::object!();
