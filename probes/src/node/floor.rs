//! A program that does nothing: the floor that every probe's cost stands on.
//! Only the benchmark attaches it.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

/// Does nothing at each context switch.
#[btf_tracepoint(function = "sched_switch")]
pub fn empty(_ctx: BtfTracePointContext) -> i32 {
    0
}
