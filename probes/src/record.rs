//! Recording a duration out of line.

use kldtrace_abi::histogram::Histogram;

/// Adds a duration to a histogram of this CPU.
///
/// A global function, which the verifier checks once and by itself. Inside a
/// caller that records several it would follow every way through all of them
/// together, which for some programs is more than the million instructions
/// that it looks at. Costs a call, about 2 ns.
///
/// # Safety
/// `histogram` is null or a histogram of this CPU.
#[inline(never)]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn record(histogram: *mut Histogram, nanoseconds: u64) -> u64 {
    if !histogram.is_null() {
        // SAFETY: by contract.
        unsafe { Histogram::record(histogram, nanoseconds) };
    }
    0
}
