//! The planes' filters: XDP where packets arrive, and tcx where they leave.
//! What they make of a packet is in `kldtrace_abi::plane`, which says how; here
//! are only its maps.
//!
//! The object is loaded once for each interface, with the plane and what its
//! packets begin with as settings: the verifier removes what the other kind of
//! interface needs, and no packet asks which plane it is on.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![allow(
    clippy::needless_pass_by_value,
    reason = "aya's macros hand the context over by value"
)]

mod egress;
mod frame;
mod ingress;
mod interface;
mod maps;
mod tell;

use kldtrace_probes::{accounts, kernel};

kldtrace_probes::object!();
