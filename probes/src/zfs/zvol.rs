//! Volumes: requests to block devices of ZFS, from their arrival to their end.
//!
//! `void zvol_submit_bio(struct bio *bio)` (module/os/linux/zfs/zvol_os.c) is
//! where the kernel hands a request over. ZFS passes it to a thread of its own
//! and ends it there, whatever has become of it, by `bio_endio`
//! (block/bio.c), whose tracepoint `block_bio_complete` of
//! include/trace/events/block.h, `(struct request_queue *q, struct bio *bio)`,
//! is for drivers without request queues only. So the wait for such a thread is
//! in the time, and other disks are in no program's way. ZFS leaves the
//! request's own numbers as they came.
//!
//! The time is kept by the request's address, which nobody else has until it
//! has ended. The kernel's own stamp, `bio.bi_issue`, went away with 6.18.
//!
//! With `zvol_use_blk_mq=1` (2.2 and later) volumes have request queues, and
//! nothing comes by here.

use aya_ebpf::{
    macros::{btf_tracepoint, kprobe, map, raw_tracepoint},
    maps::{Array, HashMap, PerCpuHashMap},
    programs::{BtfTracePointContext, ProbeContext, RawTracePointContext},
};
use kldtrace_abi::{
    block::Op,
    loss::Loss,
    zvol::{Zvol, ZvolKey},
};

use crate::{
    accounts::{Accounts, account, lose},
    kernel::{Object, now, offsets},
    record,
};

offsets! {
    OFFSET___bio___bi_bdev
    OFFSET___bio___bi_opf
    OFFSET___bio___bi_status
    OFFSET___bio___bi_iter___bi_size
    OFFSET___block_device___bd_disk
    OFFSET___gendisk___major
    OFFSET___gendisk___first_minor
}

/// Accounts by volume and operation.
#[map]
static ZFS_ZVOLS: PerCpuHashMap<ZvolKey, Zvol> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_ZVOLS_ZERO: Array<Zvol> = Array::with_max_entries(1, 0);
/// When each request that is under way arrived, by its address.
#[map]
static ZFS_ZVOL_STARTS: HashMap<u64, u64> = HashMap::with_max_entries(1, 0);

struct ZvolAccounts;
impl Accounts for ZvolAccounts {
    type Key = ZvolKey;
    type Account = Zvol;
    const OTHER: ZvolKey = ZvolKey::OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<ZvolKey, Zvol> {
        &ZFS_ZVOLS
    }
    #[inline(always)]
    fn zero() -> &'static Array<Zvol> {
        &ZFS_ZVOLS_ZERO
    }
}

/// A request arrives.
#[kprobe]
pub fn zvol_submit_bio(ctx: ProbeContext) -> u32 {
    let bio: u64 = ctx.arg(0).unwrap_or_default();
    if ZFS_ZVOL_STARTS.insert(bio, now(), 0).is_err() {
        lose(Loss::ZfsZvolStart);
    }
    0
}

/// A request has ended.
#[btf_tracepoint(function = "block_bio_complete")]
pub fn zvol_bio_complete(ctx: BtfTracePointContext) -> i32 {
    complete::<true>(Object(ctx.arg(1)));
    0
}

/// The same where the kernel does not type its arguments.
#[raw_tracepoint(tracepoint = "block_bio_complete")]
pub fn zvol_bio_complete_raw(ctx: RawTracePointContext) -> i32 {
    complete::<false>(Object(ctx.arg(1)));
    0
}

#[inline(always)]
fn complete<const TYPED: bool>(bio: Object<TYPED>) {
    let address = bio.0 as u64;
    // SAFETY: copied at once; an entry is only replaced when its request has
    // ended.
    let Some(start) = (unsafe { ZFS_ZVOL_STARTS.get(address) }).copied() else {
        return;
    };
    let _ = ZFS_ZVOL_STARTS.remove(address);
    let disk = bio
        .follow(&OFFSET___bio___bi_bdev)
        .follow(&OFFSET___block_device___bd_disk);
    let major: u32 = disk.get(&OFFSET___gendisk___major);
    let minor: u32 = disk.get(&OFFSET___gendisk___first_minor);
    let size: u32 = bio.get(&OFFSET___bio___bi_iter___bi_size);
    // MINORBITS of include/linux/kdev_t.h.
    let key = ZvolKey {
        device: (major << 20) | minor,
        op: operation(bio.get(&OFFSET___bio___bi_opf), size),
    };
    let Some(account) = account::<ZvolAccounts>(&key) else {
        return;
    };
    let status: u8 = bio.get(&OFFSET___bio___bi_status);
    // SAFETY: this CPU's own account.
    unsafe {
        record(&raw mut (*account).latency, now().saturating_sub(start));
        if status == 0 {
            (*account).bytes += u64::from(size);
        } else {
            (*account).errors += 1;
        }
    }
}

/// What ZFS takes a request for. Without a request queue, a flush is a write
/// of nothing (block/blk-flush.c: `blkdev_issue_flush`). A secure erase, 5 of
/// `enum req_op` (include/linux/blk_types.h), is a discard.
#[inline(always)]
fn operation(flags: u32, size: u32) -> u32 {
    // REQ_OP_MASK is the low 8 bits.
    let op = match flags & 0xff {
        0 => Op::Read,
        1 if size == 0 => Op::Flush,
        1 => Op::Write,
        2 => Op::Flush,
        3 | 5 => Op::Discard,
        _ => Op::Other,
    };
    op as u32
}
