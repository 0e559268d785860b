//! Tests on the live kernel: a known thing is made to happen and must be found
//! in the numbers, against a source that is not ours.
//!
//! They need root and run one after the other (`--test-threads=1`): they
//! measure the machine that they run on.

mod block;
mod common;
mod daemon;
mod faults;
mod growth;
mod net;
mod prometheus;
mod sched;
mod tcp;
