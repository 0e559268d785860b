//! The module wireguard: handshakes, their failures, and the peers' counters.
//!
//! Handshakes are rare (one in two minutes for each peer in use), so their
//! hooks are functions that run once for each message of one. What happens to
//! every packet is read from counters that the kernel keeps.
//!
//! No private, preshared or ephemeral key is read. What is copied of a peer is
//! its public key, counters, times and its address on the underlay; a test
//! (userspace/src/kernel/object.rs) reads the relocations of this object and
//! fails for a field that holds a secret.
#![no_std]
#![no_main]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod account;
mod data;
mod event;
mod handshake;
mod peer;
mod receive;
mod walk;

use kldtrace_probes::{accounts, kernel};

kldtrace_probes::object!();
