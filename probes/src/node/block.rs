//! Block requests: time in the queue, time in the device, bytes, errors.
//!
//! `block_rq_complete` of include/trace/events/block.h:
//! `(struct request *rq, blk_status_t error, unsigned int nr_bytes)`. The
//! request keeps both times itself, on `ktime_get_ns`: `start_time_ns` since
//! it was made, `io_start_time_ns` since it was issued. They are 0 where the
//! queue keeps no statistics. A request may complete in parts; its latency is
//! that of the last.
//!
//! A write with PREFLUSH or FUA goes through a flush sequence
//! (block/blk-flush.c): its data completes inside the sequence, marked
//! RQF_FLUSH_SEQ, and the request completes once more, unmarked, at the end.
//! As in the kernel's own account (blk_account_io_done of block/blk-mq.c), the
//! end counts. A bare flush, what fsync sends, ends the same way without ever
//! being issued: the device's share of it is the request with the operation
//! flush that the sequence makes.

use aya_ebpf::{
    macros::{btf_tracepoint, raw_tracepoint},
    programs::{BtfTracePointContext, RawTracePointContext},
};
use kldtrace_abi::{
    block::{Block, BlockKey, Op},
    histogram::Histogram,
    loss::Loss,
};

use kldtrace_probes::slots::{account, accounts_at_slots};

use crate::{
    accounts::lose,
    kernel::{Object, now, offsets, on, setting, settings},
};

offsets! {
    OFFSET___request___q
    OFFSET___request___cmd_flags
    OFFSET___request___rq_flags
    OFFSET___request_____data_len
    OFFSET___request___start_time_ns
    OFFSET___request___io_start_time_ns
    OFFSET___request_queue___disk
    OFFSET___gendisk___major
    OFFSET___gendisk___first_minor
}

settings! {
    /// Queue latency.
    SWITCH_BLOCK_QUEUE
    /// Device latency.
    SWITCH_BLOCK_DEVICE
    /// RQF_FLUSH_SEQ of this kernel.
    REQUEST_FLUSH_SEQ
}

accounts_at_slots! {
    BlockAccounts: BlockKey => Block, Loss::BlockSeries,
    BLOCK BLOCK_SLOTS BLOCK_FREE BLOCK_OWNERS BLOCK_HINTS
}

/// A request, or a part of it, is done.
#[btf_tracepoint(function = "block_rq_complete")]
pub fn block_rq_complete(ctx: BtfTracePointContext) -> i32 {
    complete::<true>(Object(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

/// The same where the kernel does not type its arguments.
#[raw_tracepoint(tracepoint = "block_rq_complete")]
pub fn block_rq_complete_raw(ctx: RawTracePointContext) -> i32 {
    complete::<false>(Object(ctx.arg(0)), ctx.arg(1), ctx.arg(2));
    0
}

#[inline(always)]
fn complete<const TYPED: bool>(request: Object<TYPED>, error: u32, bytes: u32) {
    let disk = request
        .follow(&OFFSET___request___q)
        .follow(&OFFSET___request_queue___disk);
    // REQ_OP_MASK is the low 8 bits (include/linux/blk_types.h).
    let op = request.get::<u32>(&OFFSET___request___cmd_flags) & 0xff;
    let op = if op > Op::Discard as u32 {
        Op::Other as u32
    } else {
        op
    };
    let key = BlockKey::new(
        disk.get(&OFFSET___gendisk___major),
        disk.get(&OFFSET___gendisk___first_minor),
        op.into(),
    );
    let Some(account) = account::<BlockAccounts>(&key) else {
        return;
    };
    // SAFETY: this CPU's own account.
    unsafe { (*account).bytes += u64::from(bytes) };
    let flags: u32 = request.get(&OFFSET___request___rq_flags);
    let inside = u64::from(flags) & setting(&REQUEST_FLUSH_SEQ) != 0;
    // The sequence's own flush carries the mark as well.
    if inside && op != Op::Flush as u32 {
        return;
    }
    // blk_status_t is one byte; what lies above it in the register is not.
    if error & 0xff != 0 {
        // SAFETY: as above.
        unsafe { (*account).errors += 1 };
    }
    if bytes < request.get::<u32>(&OFFSET___request_____data_len) {
        return;
    }
    // SAFETY: as above.
    unsafe { (*account).requests += 1 };
    if !(on(&SWITCH_BLOCK_QUEUE) || on(&SWITCH_BLOCK_DEVICE)) {
        return;
    }
    let started: u64 = request.get(&OFFSET___request___start_time_ns);
    let issued: u64 = request.get(&OFFSET___request___io_start_time_ns);
    if started == 0 || issued == 0 {
        // The end of a bare flush has no times: see above, nothing is missing.
        if bytes != 0 || op == Op::Flush as u32 {
            lose(Loss::BlockStamp);
        }
        return;
    }
    // SAFETY: as above.
    unsafe {
        if on(&SWITCH_BLOCK_QUEUE) {
            Histogram::record(&raw mut (*account).queue, issued.saturating_sub(started));
        }
        if on(&SWITCH_BLOCK_DEVICE) {
            let time = now();
            Histogram::record(&raw mut (*account).device, time.saturating_sub(issued));
        }
    }
}
