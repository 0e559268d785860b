//! `void spa_sync(spa_t *spa, uint64_t txg)` (module/zfs/spa.c): a transaction
//! group on its way to the vdevs, once for each.

use aya_ebpf::{
    helpers::bpf_get_current_pid_tgid,
    macros::{kprobe, kretprobe, map},
    maps::{Array, HashMap, PerCpuHashMap},
    programs::{ProbeContext, RetProbeContext},
};
use kldtrace_abi::{OTHER, histogram::Histogram, loss::Loss, zfs::Sync};

use super::vdev::{OFFSET___vdev___vdev_guid, Plain, know, root};
use crate::{
    accounts::{Accounts, account, lose},
    kernel::now,
    record,
};

/// Histograms by GUID of the pool.
#[map]
static ZFS_SYNCS: PerCpuHashMap<u64, Histogram> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_SYNCS_ZERO: Array<Histogram> = Array::with_max_entries(1, 0);
/// Syncs under way, by thread: each pool has one for them.
#[map]
static ZFS_SYNCS_NOW: HashMap<u64, Sync> = HashMap::with_max_entries(1024, 0);

struct SyncAccounts;
impl Accounts for SyncAccounts {
    type Key = u64;
    type Account = Histogram;
    const OTHER: u64 = OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<u64, Histogram> {
        &ZFS_SYNCS
    }
    #[inline(always)]
    fn zero() -> &'static Array<Histogram> {
        &ZFS_SYNCS_ZERO
    }
}

/// A sync begins.
#[kprobe]
pub fn zfs_sync_enter(ctx: ProbeContext) -> u32 {
    let spa = Plain::at(ctx.arg(0).unwrap_or_default());
    let root = root(spa);
    let pool: u64 = root.get(&OFFSET___vdev___vdev_guid);
    know(spa, root, pool);
    let sync = Sync { pool, start: now() };
    let inserted = ZFS_SYNCS_NOW.insert(bpf_get_current_pid_tgid(), sync, 0);
    if inserted.is_err() {
        lose(Loss::ZfsSync);
    }
    0
}

/// A sync has ended.
#[kretprobe]
pub fn zfs_sync_leave(_ctx: RetProbeContext) -> u32 {
    let end = now();
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: copied at once; the entry is this thread's.
    let Some(sync) = (unsafe { ZFS_SYNCS_NOW.get(thread) }).copied() else {
        return 0;
    };
    let _ = ZFS_SYNCS_NOW.remove(thread);
    if let Some(histogram) = account::<SyncAccounts>(&sync.pool) {
        // SAFETY: this CPU's own histogram.
        unsafe { record(histogram, end.saturating_sub(sync.start)) };
    }
    0
}
