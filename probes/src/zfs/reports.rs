//! ZFS's own reports of trouble: wrong checksums, slow and hung requests,
//! failures.
//!
//! From module/zfs/zfs_fm.c:
//!
//! - `int zfs_ereport_post(const char *subclass, spa_t *spa, vdev_t *vd,
//!   const zbookmark_phys_t *zb, zio_t *zio, uint64_t state)`
//! - `int zfs_ereport_start_checksum(spa_t *spa, vdev_t *vd,
//!   const zbookmark_phys_t *zb, zio_t *zio, …)`, and
//!   `zfs_ereport_post_checksum`, which begins the same
//!
//! return 0 for a report that is made, EBUSY for one too many in this second,
//! EALREADY for a repetition and EINVAL for one that would mean nothing (a
//! device that is gone, a pool that is only looked at).
//!
//! What is counted is what `zpool status` counts: whoever calls these for a
//! checksum or a slow request has counted it (`vs_checksum_errors`,
//! `vs_slow_ios`) whatever they return; `zio_done` counts a failed request
//! (`vs_read_errors`, `vs_write_errors`) unless it is a repetition. Only what
//! is made is told as an event: so ZFS's own limits hold there, and one of ours,
//! as ZFS has none for failures.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_probe_read_kernel_str_bytes},
    macros::{kprobe, kretprobe, map},
    maps::{Array, HashMap, PerCpuArray, PerCpuHashMap},
    programs::{ProbeContext, RetProbeContext},
};
use kldtrace_abi::{
    loss::Loss,
    zfs_report::{CLASS, NO_REQUEST, REPORT, REPORTS_PER_SECOND, Report, ReportKey, Reports, Told},
};

use super::{
    ops::EVENTS,
    vdev::{
        OFFSET___vdev___vdev_guid, OFFSET___zio___io_bookmark___zb_objset, OFFSET___zio___io_delay,
        OFFSET___zio___io_error, OFFSET___zio___io_priority, OFFSET___zio___io_size,
        OFFSET___zio___io_type, Plain, know, root,
    },
};
use crate::{
    accounts::{Accounts, account, lose},
    kernel::{now, offsets},
};

offsets! {
    OFFSET___zio___io_offset
    OFFSET___zio___io_bookmark___zb_object
}

const EINVAL: i32 = 22;
const EALREADY: i32 = 114;

/// Classes whose callers have counted already.
const CHECKSUM: &[u8; 8] = b"checksum";
const DELAY: &[u8; 8] = b"delay\0\0\0";
const DEADMAN: &[u8; 8] = b"deadman\0";

/// Accounts by vdev and class.
#[map]
static ZFS_REPORTS: PerCpuHashMap<ReportKey, Reports> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_REPORTS_ZERO: Array<Reports> = Array::with_max_entries(1, 0);
/// Reports that are just being made, by thread: one does not lead to another.
#[map]
static ZFS_REPORTS_NOW: HashMap<u64, Report> = HashMap::with_max_entries(1024, 0);
/// The reports of this second.
#[map]
static ZFS_REPORTS_TOLD: Array<Told> = Array::with_max_entries(1, 0);
/// Too large for the stack together with what else is there.
#[map]
static ZFS_REPORT_SPACE: PerCpuArray<Report> = PerCpuArray::with_max_entries(1, 0);

struct ReportAccounts;
impl Accounts for ReportAccounts {
    type Key = ReportKey;
    type Account = Reports;
    const OTHER: ReportKey = ReportKey::OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<ReportKey, Reports> {
        &ZFS_REPORTS
    }
    #[inline(always)]
    fn zero() -> &'static Array<Reports> {
        &ZFS_REPORTS_ZERO
    }
}

/// A report of any class but that of checksums begins.
#[kprobe]
pub fn zfs_report_enter(ctx: ProbeContext) -> u32 {
    begin(
        argument(&ctx, 0),
        argument(&ctx, 1),
        argument(&ctx, 2),
        argument(&ctx, 4),
    );
    0
}

/// A report of a wrong checksum begins.
#[kprobe]
pub fn zfs_checksum_report_enter(ctx: ProbeContext) -> u32 {
    begin(
        Plain::at(0),
        argument(&ctx, 0),
        argument(&ctx, 1),
        argument(&ctx, 3),
    );
    0
}

#[inline(always)]
fn argument(ctx: &ProbeContext, number: usize) -> Plain {
    Plain::at(ctx.arg::<u64>(number).unwrap_or_default())
}

#[inline(always)]
fn begin(class: Plain, spa: Plain, vdev: Plain, zio: Plain) {
    let vdev = if vdev.is_null() { root(spa) } else { vdev };
    let guid: u64 = vdev.get(&OFFSET___vdev___vdev_guid);
    know(spa, vdev, guid);
    let Some(report) = ZFS_REPORT_SPACE.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this CPU's own memory; the helper checks the address.
    unsafe {
        (*report).kind = REPORT;
        (*report).about.vdev = guid;
        (*report).about.class = [0; CLASS];
        if class.is_null() {
            (&raw mut (*report).about.class)
                .cast::<[u8; 8]>()
                .write(*CHECKSUM);
        } else {
            let _ = bpf_probe_read_kernel_str_bytes(class.0, &mut (*report).about.class);
        }
        (*report).request_type = if zio.is_null() {
            NO_REQUEST
        } else {
            zio.get(&OFFSET___zio___io_type)
        };
        // Zeros where there is no request.
        (*report).priority = zio.get(&OFFSET___zio___io_priority);
        (*report).error = zio.get(&OFFSET___zio___io_error);
        (*report).at = now();
        // While it is in its device, this is when it came there, by a clock
        // that programs cannot read.
        (*report).delay = if prefix(report) == *DEADMAN {
            0
        } else {
            zio.get(&OFFSET___zio___io_delay)
        };
        (*report).offset = zio.get(&OFFSET___zio___io_offset);
        (*report).size = zio.get(&OFFSET___zio___io_size);
        (*report).objset = zio.get(&OFFSET___zio___io_bookmark___zb_objset);
        (*report).object = zio.get(&OFFSET___zio___io_bookmark___zb_object);
        // By reference: it is large.
        let report = &*report;
        if ZFS_REPORTS_NOW
            .insert(bpf_get_current_pid_tgid(), report, 0)
            .is_err()
        {
            lose(Loss::ZfsReport);
        }
    }
}

/// What its class begins with.
///
/// # Safety
/// `report` is a report.
#[inline(always)]
unsafe fn prefix(report: *const Report) -> [u8; 8] {
    // SAFETY: by contract; a class is longer.
    unsafe { (&raw const (*report).about.class).cast::<[u8; 8]>().read() }
}

/// Whether there is room for one more in this second. CPUs that ask at once may
/// let a few more through.
#[inline(always)]
fn allowed(at: u64) -> bool {
    let Some(told) = ZFS_REPORTS_TOLD.get_ptr_mut(0) else {
        return false;
    };
    let second = at / 1_000_000_000;
    // SAFETY: a value of the map.
    let before = unsafe {
        if (*told).second != second {
            (*told).second = second;
            (*told).reports = 0;
        }
        (*told).reports += 1;
        (*told).reports - 1
    };
    if before >= REPORTS_PER_SECOND {
        lose(Loss::ZfsEvent);
    }
    before < REPORTS_PER_SECOND
}

/// Any of them has ended.
#[kretprobe]
pub fn zfs_report_leave(ctx: RetProbeContext) -> u32 {
    let thread = bpf_get_current_pid_tgid();
    let Some(report) = ZFS_REPORTS_NOW.get_ptr(thread) else {
        return 0;
    };
    let answer: i32 = ctx.ret();
    // SAFETY: the entry is this thread's, and stays until it is removed below.
    unsafe {
        let counted = [*CHECKSUM, *DELAY, *DEADMAN].contains(&prefix(report));
        if counted || (answer != EINVAL && answer != EALREADY) {
            let about = (*report).about;
            if let Some(account) = account::<ReportAccounts>(&about) {
                (*account).count += 1;
            }
        }
        if answer == 0 && allowed((*report).at) && EVENTS.output::<Report>(&*report, 0).is_err() {
            lose(Loss::Event);
        }
    }
    let _ = ZFS_REPORTS_NOW.remove(thread);
    0
}
