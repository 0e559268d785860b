//! What operations wait for. These functions are on slow paths only: a read
//! that the ARC serves calls none of them.
//!
//! - `__cv_timedwait_io` (module/os/linux/spl/spl-condvar.c), which `zio_wait`
//!   (module/zfs/zio.c), and nobody else, calls until a request of one's own
//!   is done. `zio_wait` itself is called by every read, for a request that
//!   has no children where the ARC serves it;
//! - `zil_commit` (module/zfs/zil.c): until what was logged is on stable
//!   storage;
//! - `dmu_tx_wait` (module/zfs/dmu_tx.c): when a transaction cannot be
//!   assigned, or is delayed by the write throttle (`dmu_tx_delay`);
//! - `txg_wait_synced_impl`, `txg_wait_open` (module/zfs/txg.c).

use aya_ebpf::{
    macros::{kprobe, kretprobe},
    programs::{ProbeContext, RetProbeContext},
};
use kldtrace_abi::zfs::{STAGE_KIND, Stage};

use super::frames::{enter_stage, leave, stack_pointer};
use crate::kernel::now;

/// An entry and a return for each.
macro_rules! stages {
    ($($(#[$doc:meta])* $enter:ident $leave:ident $stage:ident;)+) => { $(
        $(#[$doc])*
        #[kprobe]
        pub fn $enter(ctx: ProbeContext) -> u32 {
            // SAFETY: the context's own registers.
            let sp = unsafe { stack_pointer(ctx.regs) };
            enter_stage(Stage::$stage, sp);
            0
        }

        $(#[$doc])*
        #[kretprobe]
        pub fn $leave(ctx: RetProbeContext) -> u32 {
            // SAFETY: the context's own registers.
            let sp = unsafe { stack_pointer(ctx.regs) };
            if let Some(ended) = leave(STAGE_KIND + Stage::$stage as u32, sp, now()) {
                ended.give(Stage::$stage as usize);
            }
            0
        }
    )+ };
}

stages! {
    /// Waiting for a request.
    zio_wait_enter zio_wait_leave ArcMiss;
    /// Waiting for the intent log.
    zil_commit_enter zil_commit_leave ZilCommit;
    /// Waiting to be let into a transaction group.
    dmu_tx_wait_enter dmu_tx_wait_leave Throttle;
    /// Waiting for a transaction group to be synced or opened.
    txg_wait_enter txg_wait_leave TxgWait;
}
