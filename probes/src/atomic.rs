//! What several CPUs do to the same number at once.
//!
//! BPF has the instructions; but rustc takes the target for one without
//! compare-and-swap, for which `AtomicU64` has nothing to offer, so these are
//! the intrinsics behind it. Those that give the former value came with 5.12 (on
//! arm64 with 5.18), and order what is before and after them.
//!
//! On the host they are checked only, never run.

/// Adds to a counter that other CPUs add to.
///
/// # Safety
/// `number` lies in a map's value.
#[inline(always)]
pub unsafe fn add(number: *mut u64, more: u64) {
    // SAFETY: by contract; it is aligned.
    #[cfg(target_arch = "bpf")]
    unsafe {
        use core::intrinsics::{AtomicOrdering, atomic_xadd};
        atomic_xadd::<u64, u64, { AtomicOrdering::Relaxed }>(number, more);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        *number = (*number).wrapping_add(more);
    }
}

/// Takes a place that holds 0: whether nobody was faster.
///
/// # Safety
/// `number` lies in a map's value.
#[inline(always)]
pub unsafe fn take(number: *mut u64, mark: u64) -> bool {
    // SAFETY: by contract; it is aligned.
    #[cfg(target_arch = "bpf")]
    unsafe {
        // Of the intrinsic's answer the compiler makes a number, and compares that.
        let before: u64;
        core::arch::asm!(
            "r0 = cmpxchg_64({number} + 0, r0, {mark})",
            number = in(reg) number,
            mark = in(reg) mark,
            inout("r0") 0_u64 => before,
        );
        before == 0
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        let free = *number == 0;
        if free {
            *number = mark;
        }
        free
    }
}

/// Gives the place back, after all that was done with it.
///
/// # Safety
/// `number` lies in a map's value.
#[inline(always)]
pub unsafe fn give_back(number: *mut u64) {
    // SAFETY: by contract; it is aligned.
    #[cfg(target_arch = "bpf")]
    unsafe {
        use core::intrinsics::{AtomicOrdering, atomic_xchg};
        atomic_xchg::<u64, { AtomicOrdering::SeqCst }>(number, 0);
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: as above.
    unsafe {
        *number = 0;
    }
}
