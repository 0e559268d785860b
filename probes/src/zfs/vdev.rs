//! Requests to vdevs: time in ZFS's queue and in the device, and which of them
//! were writes of an intent log.
//!
//! A request to a vdev that is a disk or a file, and no other, ends in that
//! vdev's `void vdev_disk_io_done(zio_t *zio)` (module/os/linux/zfs/vdev_disk.c)
//! or `vdev_file_io_done`. `zio_vdev_io_done` (module/zfs/zio.c) calls it when
//! the request has its times: `io_delta` since it came to the queue, `io_delay`
//! since it was issued; and its error, one that zinject puts in too. What is
//! counted here is what `vdev_stat_update` (module/zfs/vdev.c), which every
//! request of any kind comes by, will count for `zpool iostat -w`: priorities
//! that have a queue, both times set. A request that was merged into another
//! does not come here: the other one counts. Only a request whose checksum turns
//! out wrong afterwards has a time here and none there.
//!
//! Writes of an intent log carry the object set in their bookmark
//! (module/zfs/zil.c: `SET_BOOKMARK(…, ZB_ZIL_OBJECT, ZB_ZIL_LEVEL, …)`), and
//! their children on vdevs inherit it (`zio_vdev_child_io`).

use aya_ebpf::{
    helpers::bpf_probe_read_kernel_str_bytes,
    macros::{kprobe, map},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
    programs::ProbeContext,
};
use kldtrace_abi::{
    loss::Loss,
    zfs::{LogKey, LogWrites, Vdev, VdevKey, VdevNames},
};

use crate::{
    accounts::{Accounts, account, lose},
    kernel::{Object, offsets, on, settings},
    record,
};

offsets! {
    OFFSET___zio___io_vd
    OFFSET___zio___io_spa
    OFFSET___zio___io_type
    OFFSET___zio___io_priority
    OFFSET___zio___io_error
    OFFSET___zio___io_size
    OFFSET___zio___io_delta
    OFFSET___zio___io_delay
    OFFSET___zio___io_bookmark___zb_level
    OFFSET___zio___io_bookmark___zb_objset
    OFFSET___vdev___vdev_guid
    OFFSET___vdev___vdev_ops
    OFFSET___vdev___vdev_top
    OFFSET___vdev___vdev_path
    OFFSET___vdev___vdev_islog
    OFFSET___vdev___vdev_wholedisk
    OFFSET___vdev___vdev_id
    OFFSET___vdev_ops___vdev_op_type
    OFFSET___spa___spa_name
    OFFSET___spa___spa_root_vdev
}

settings! {
    /// Intent-log writes by dataset.
    SWITCH_ZFS_LOG_WRITES
}

/// Untyped: probes at functions get plain numbers for arguments.
pub type Plain = Object<false>;

/// ZB_ZIL_LEVEL of include/sys/zio.h.
const ZIL_LEVEL: i64 = -2;
/// ZIO_PRIORITY_NUM_QUEUEABLE of include/sys/zio_priority.h: since 2.0, when
/// rebuild came, and still in 2.4.
const QUEUEABLE: u32 = 9;

/// Accounts by vdev, type and priority.
#[map]
static ZFS_VDEVS: PerCpuHashMap<VdevKey, Vdev> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_VDEVS_ZERO: Array<Vdev> = Array::with_max_entries(1, 0);
/// Intent-log writes by vdev and object set.
#[map]
static ZFS_LOGS: PerCpuHashMap<LogKey, LogWrites> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_LOGS_ZERO: Array<LogWrites> = Array::with_max_entries(1, 0);
/// What vdevs are called, by GUID. User space takes entries out when they may
/// have changed; the next request puts in what is true then.
#[map]
static ZFS_NAMES: HashMap<u64, VdevNames> = HashMap::with_max_entries(1024, 0);
/// Too large for the stack.
#[map]
static ZFS_NAMES_SPACE: PerCpuArray<VdevNames> = PerCpuArray::with_max_entries(1, 0);

struct VdevAccounts;
impl Accounts for VdevAccounts {
    type Key = VdevKey;
    type Account = Vdev;
    const OTHER: VdevKey = VdevKey::OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<VdevKey, Vdev> {
        &ZFS_VDEVS
    }
    #[inline(always)]
    fn zero() -> &'static Array<Vdev> {
        &ZFS_VDEVS_ZERO
    }
}

struct LogAccounts;
impl Accounts for LogAccounts {
    type Key = LogKey;
    type Account = LogWrites;
    const OTHER: LogKey = LogKey::OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<LogKey, LogWrites> {
        &ZFS_LOGS
    }
    #[inline(always)]
    fn zero() -> &'static Array<LogWrites> {
        &ZFS_LOGS_ZERO
    }
}

/// A request to a vdev is done.
#[kprobe]
pub fn zfs_vdev_done(ctx: ProbeContext) -> u32 {
    let zio = Plain::at(ctx.arg(0).unwrap_or_default());
    let error: i32 = zio.get(&OFFSET___zio___io_error);
    let delta: u64 = zio.get(&OFFSET___zio___io_delta);
    let delay: u64 = zio.get(&OFFSET___zio___io_delay);
    if error == 0 && (delta == 0 || delay == 0) {
        return 0;
    }
    let priority: u32 = zio.get(&OFFSET___zio___io_priority);
    if priority >= QUEUEABLE {
        return 0;
    }
    let vdev = zio.follow(&OFFSET___zio___io_vd);
    let guid: u64 = vdev.get(&OFFSET___vdev___vdev_guid);
    if !is_known(guid) {
        name(zio.follow(&OFFSET___zio___io_spa), vdev, guid);
    }
    let key = VdevKey {
        vdev: guid,
        kind: zio.get(&OFFSET___zio___io_type),
        priority,
    };
    let Some(account) = account::<VdevAccounts>(&key) else {
        return 0;
    };
    // SAFETY: this CPU's own account.
    unsafe {
        if error != 0 {
            (*account).errors += 1;
            return 0;
        }
        (*account).bytes += zio.get::<u64>(&OFFSET___zio___io_size);
        record(&raw mut (*account).queue, delta.saturating_sub(delay));
        record(&raw mut (*account).device, delay);
    }
    if on(&SWITCH_ZFS_LOG_WRITES)
        && zio.get::<i64>(&OFFSET___zio___io_bookmark___zb_level) == ZIL_LEVEL
    {
        log_write(zio, guid, delta, delay);
    }
    0
}

#[inline(always)]
fn log_write(zio: Plain, vdev: u64, delta: u64, delay: u64) {
    let key = LogKey {
        vdev,
        objset: zio.get(&OFFSET___zio___io_bookmark___zb_objset),
    };
    if let Some(account) = account::<LogAccounts>(&key) {
        // SAFETY: this CPU's own account.
        unsafe {
            record(&raw mut (*account).queue, delta.saturating_sub(delay));
            record(&raw mut (*account).device, delay);
        }
    }
}

/// The vdev that stands for all of a pool: its GUID is the pool's
/// (module/zfs/spa_misc.c: `spa_guid`).
#[inline(always)]
pub fn root(spa: Plain) -> Plain {
    spa.follow(&OFFSET___spa___spa_root_vdev)
}

/// Sees to it that a vdev's name is known.
#[inline(always)]
pub fn know(spa: Plain, vdev: Plain, guid: u64) {
    if !is_known(guid) {
        name(spa, vdev, guid);
    }
}

#[inline(always)]
fn is_known(guid: u64) -> bool {
    ZFS_NAMES.get_ptr(guid).is_some()
}

/// Writes down what a vdev is called.
#[inline(always)]
fn name(spa: Plain, vdev: Plain, guid: u64) {
    let Some(names) = ZFS_NAMES_SPACE.get_ptr_mut(0) else {
        return;
    };
    let pool = spa.part(&OFFSET___spa___spa_name);
    let path = vdev.follow(&OFFSET___vdev___vdev_path);
    let top = vdev.follow(&OFFSET___vdev___vdev_top);
    let kind = vdev
        .follow(&OFFSET___vdev___vdev_ops)
        .part(&OFFSET___vdev_ops___vdev_op_type);
    // SAFETY: this CPU's own memory; the helper checks the addresses.
    unsafe {
        (*names).pool[0] = 0;
        (*names).path[0] = 0;
        (*names).kind[0] = 0;
        let _ = bpf_probe_read_kernel_str_bytes(pool.0, &mut (*names).pool);
        let _ = bpf_probe_read_kernel_str_bytes(path.0, &mut (*names).path);
        let _ = bpf_probe_read_kernel_str_bytes(kind.0, &mut (*names).kind);
        (*names).log = top.get(&OFFSET___vdev___vdev_islog);
        (*names).whole_disk = vdev.get(&OFFSET___vdev___vdev_wholedisk);
        (*names).number = vdev.get(&OFFSET___vdev___vdev_id);
        // By reference: it is larger than the stack.
        let names = &*names;
        if ZFS_NAMES.insert(guid, names, 0).is_err() {
            lose(Loss::ZfsSeries);
        }
    }
}
