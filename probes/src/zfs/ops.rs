//! Operations as applications feel them: from the call of the file system to
//! its return (module/os/linux/zfs/zpl_file.c).
//!
//! Everything that is read of them is the kernel's own, so this needs no types
//! of the module: the dataset is the device number of its super block.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid},
    macros::{fentry, fexit, kprobe, kretprobe, map},
    maps::{Array, PerCpuHashMap, RingBuf},
    programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext},
};
use kldtrace_abi::{
    histogram::Histogram,
    loss::Loss,
    zfs::{Frame, HOOKED, Op, OpKey, SLOW_OPERATION, SlowOperation, Stage, StageKey},
};

use super::{
    account::{account_at, slot, slot_again},
    frames::{Ended, Only, RETURNED, enter, leave, stack_pointer, waits},
};
use crate::{
    accounts::{self, Accounts, lose},
    kernel::{Object, Typed, now, offsets, on, setting, settings},
    record,
};

offsets! {
    OFFSET___kiocb___ki_filp
    OFFSET___kiocb___ki_pos
    OFFSET___file___f_inode
    OFFSET___inode___i_sb
    OFFSET___super_block___s_dev
    OFFSET___readahead_control___mapping
    OFFSET___folio___mapping
    OFFSET___page___mapping
    OFFSET___address_space___host
}

settings! {
    /// Latency by stage.
    SWITCH_ZFS_STAGES
    /// Operations that take longer, in nanoseconds, are events; 0: none is.
    ZFS_SLOW_NS
}

/// Untyped: probes at functions get plain numbers for arguments.
type Plain = Object<false>;

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Time in each stage, by dataset and operation.
#[map]
static ZFS_STAGES: PerCpuHashMap<StageKey, Histogram> = PerCpuHashMap::with_max_entries(1, 0);
#[map]
static ZFS_STAGES_ZERO: Array<Histogram> = Array::with_max_entries(1, 0);

struct StageAccounts;
impl Accounts for StageAccounts {
    type Key = StageKey;
    type Account = Histogram;
    const OTHER: StageKey = StageKey::OTHER;
    const FULL: Loss = Loss::ZfsSeries;
    #[inline(always)]
    fn map() -> &'static PerCpuHashMap<StageKey, Histogram> {
        &ZFS_STAGES
    }
    #[inline(always)]
    fn zero() -> &'static Array<Histogram> {
        &ZFS_STAGES_ZERO
    }
}

/// `sp` tells this call from others: [`Frame::sp`]. `offset` is where it is in the file,
/// where the return does not tell ([`end`]).
#[inline(always)]
fn begin<const TYPED: bool>(sp: u64, op: Op, inode: Object<TYPED>, offset: Option<u64>) {
    let device: u32 = inode
        .follow(&OFFSET___inode___i_sb)
        .get(&OFFSET___super_block___s_dev);
    enter(op, sp, OpKey::new(device, op), offset);
}

#[inline(always)]
fn sp_of(ctx: &ProbeContext) -> u64 {
    // SAFETY: the context's own registers.
    unsafe { stack_pointer(ctx.regs) }
}

#[inline(always)]
fn argument(ctx: &ProbeContext, number: usize) -> Plain {
    Object(ctx.arg::<u64>(number).unwrap_or_default() as *const u8)
}

#[inline(always)]
fn inode_of<const TYPED: bool>(file: Object<TYPED>) -> Object<TYPED> {
    file.follow(&OFFSET___file___f_inode)
}

#[inline(always)]
fn begin_at(sp: u64, op: Op, kiocb: Plain) {
    let inode = inode_of(kiocb.follow(&OFFSET___kiocb___ki_filp));
    begin(sp, op, inode, Some(kiocb.get(&OFFSET___kiocb___ki_pos)));
}

/// The same as [`zpl_read_enter`], by a trampoline. Where both are attached, while
/// the one takes the other's place, this comes second and goes on with the call
/// ([`super::frames::enter`]).
#[fentry(function = "zpl_iter_read")]
pub fn zpl_read_entry(ctx: FEntryContext) -> i32 {
    let kiocb: Typed = Object(ctx.arg(0));
    let inode = inode_of(kiocb.follow(&OFFSET___kiocb___ki_filp));
    begin(ctx.as_ptr() as u64, Op::Read, inode, None);
    0
}

/// The same as [`zpl_read_leave`], by a trampoline, in whose own frame the
/// arguments lie where they were at the entry.
#[fexit(function = "zpl_iter_read")]
pub fn zpl_read_exit(ctx: FExitContext) -> i32 {
    let result = ctx.arg(2);
    end(ctx.as_ptr() as u64 + RETURNED, Op::Read, result, || {
        // It has gone on by what was read.
        let kiocb: Typed = Object(ctx.arg(0));
        let end: u64 = kiocb.get(&OFFSET___kiocb___ki_pos);
        Some(end.wrapping_sub(u64::try_from(result).unwrap_or(0)))
    });
    0
}

/// `ssize_t zpl_iter_read(struct kiocb *kiocb, struct iov_iter *to)`
#[kprobe]
pub fn zpl_read_enter(ctx: ProbeContext) -> u32 {
    begin_at(sp_of(&ctx), Op::Read, argument(&ctx, 0));
    0
}

/// `ssize_t zpl_iter_write(struct kiocb *kiocb, struct iov_iter *from)`
#[kprobe]
pub fn zpl_write_enter(ctx: ProbeContext) -> u32 {
    begin_at(sp_of(&ctx), Op::Write, argument(&ctx, 0));
    0
}

/// `int zpl_fsync(struct file *filp, loff_t start, loff_t end, int datasync)`
#[kprobe]
pub fn zpl_fsync_enter(ctx: ProbeContext) -> u32 {
    begin(sp_of(&ctx), Op::Fsync, inode_of(argument(&ctx, 0)), Some(0));
    0
}

/// `int zpl_open(struct inode *ip, struct file *filp)`
#[kprobe]
pub fn zpl_open_enter(ctx: ProbeContext) -> u32 {
    begin(sp_of(&ctx), Op::Open, argument(&ctx, 0), Some(0));
    0
}

/// `int zpl_iterate(struct file *filp, struct dir_context *ctx)`
#[kprobe]
pub fn zpl_readdir_enter(ctx: ProbeContext) -> u32 {
    begin(
        sp_of(&ctx),
        Op::Readdir,
        inode_of(argument(&ctx, 0)),
        Some(0),
    );
    0
}

/// `void zpl_readahead(struct readahead_control *ractl)`
#[kprobe]
pub fn zpl_readahead_enter(ctx: ProbeContext) -> u32 {
    let mapping = argument(&ctx, 0).follow(&OFFSET___readahead_control___mapping);
    begin(
        sp_of(&ctx),
        Op::MmapRead,
        mapping.follow(&OFFSET___address_space___host),
        Some(0),
    );
    0
}

/// `int zpl_read_folio(struct file *filp, struct folio *folio)`
#[kprobe]
pub fn zpl_read_folio_enter(ctx: ProbeContext) -> u32 {
    let mapping = argument(&ctx, 1).follow(&OFFSET___folio___mapping);
    begin(
        sp_of(&ctx),
        Op::MmapRead,
        mapping.follow(&OFFSET___address_space___host),
        Some(0),
    );
    0
}

/// `int zpl_readpage(struct file *filp, struct page *pp)`, before 5.19.
#[kprobe]
pub fn zpl_readpage_enter(ctx: ProbeContext) -> u32 {
    let mapping = argument(&ctx, 1).follow(&OFFSET___page___mapping);
    begin(
        sp_of(&ctx),
        Op::MmapRead,
        mapping.follow(&OFFSET___address_space___host),
        Some(0),
    );
    0
}

/// What a function returns.
#[derive(Clone, Copy)]
enum Returns {
    /// Bytes, or a negative error number.
    Bytes,
    /// 0, or a negative error number in 32 bits.
    Status,
    /// Nothing.
    Nothing,
}

#[inline(always)]
fn end_at_return(ctx: &RetProbeContext, op: Op, returns: Returns) {
    // SAFETY: the context's own registers.
    let sp = unsafe { stack_pointer(ctx.regs) };
    let result = match returns {
        Returns::Bytes => ctx.ret::<i64>(),
        Returns::Status => i64::from(ctx.ret::<i32>()),
        Returns::Nothing => 0,
    };
    end(sp, op, result, || None);
}

/// `result`: bytes, or a negative error number. `offset` is where it was in the file, if
/// its entry has not noted it.
#[inline(always)]
fn end(sp: u64, op: Op, result: i64, offset: impl FnOnce() -> Option<u64>) {
    let now = now();
    if !end_at_once(sp, op, result, now) {
        end_further(op as u32, sp, result, now, offset().unwrap_or(NOTED));
    }
}

/// The most that a call reads or writes (include/linux/fs.h: MAX_RW_COUNT).
const MOST_BYTES: u64 = i32::MAX as u64;

/// No offset in a file.
const NOTED: u64 = u64::MAX;

/// Whether to tell of an operation that took so many nanoseconds.
#[inline(always)]
fn is_slow(total: u64) -> bool {
    let slow = setting(&ZFS_SLOW_NS);
    slow != 0 && total >= slow
}

/// Whether that was all: of an operation that memory served, in no other. It calls
/// nothing but the kernel.
#[inline(always)]
fn end_at_once(sp: u64, op: Op, result: i64, now: u64) -> bool {
    let Some(only) = Only::leave(op as u32, sp, now) else {
        return false;
    };
    let bytes = result.cast_unsigned();
    // An error is more.
    if bytes > MOST_BYTES || is_slow(only.total) {
        return false;
    }
    // SAFETY: the thread's own memory, and this CPU's own account.
    unsafe {
        let Some(slot) = slot_again(only.thread, op as u32, (*only.frame).key) else {
            return false;
        };
        if let Some(account) = account_at(slot) {
            (*account).bytes += bytes;
            (*account).from_memory += 1;
            // Last, as the verifier follows many ways through it.
            Histogram::record(&raw mut (*account).latency, only.total);
        }
    }
    only.done();
    true
}

/// All others. Out of line: what is not served by memory has time.
#[inline(never)]
fn end_further(op: u32, sp: u64, result: i64, now: u64, offset: u64) {
    if let Some(ended) = leave(op, sp, now) {
        if offset != NOTED {
            // SAFETY: the frame that has just ended.
            unsafe { (*ended.frame).offset = offset };
        }
        count(&ended, op, result);
        ended.done();
    }
}

#[inline(always)]
fn count(ended: &Ended, op: u32, result: i64) {
    let Ended {
        frame,
        total,
        away,
        thread,
        ..
    } = *ended;
    // SAFETY: the thread's, which has just left the frame.
    let slot = unsafe { slot(thread, op, (*frame).key) };
    let Some(account) = account_at(slot) else {
        return;
    };
    // SAFETY: this CPU's own account, and the frame as above.
    unsafe {
        if result > 0 {
            (*account).bytes += result.cast_unsigned();
        } else if result < 0 {
            (*account).errors += 1;
        }
        if away == 0 {
            (*account).from_memory += 1;
        } else if on(&SWITCH_ZFS_STAGES) {
            stages(frame, op.into(), total, away);
        }
        if is_slow(total) {
            tell(frame, op.into(), total, away, result);
        }
        // Last, as above.
        Histogram::record(&raw mut (*account).latency, total);
    }
}

/// Nanoseconds of an operation by stage; they add up to all that it took.
///
/// # Safety
/// The frame is the current thread's, and has just ended.
#[inline(always)]
unsafe fn by_stage(frame: *const Frame, total: u64, away: u64) -> [u64; Stage::ALL.len()] {
    // SAFETY: by contract.
    let (waited, hooked) = unsafe { ((*frame).waited != 0, (*frame).stages) };
    // SAFETY: as above.
    let (blocked, queued) = unsafe { waits(frame, away) };
    let mut other = blocked;
    let mut times = [0; Stage::ALL.len()];
    for stage in 0..HOOKED {
        let hooked = if waited { hooked[stage] } else { 0 };
        // Never more than there is: clocks of stages are read one by one.
        let time = if hooked > other { other } else { hooked };
        times[stage] = time;
        other -= time;
    }
    times[Stage::OtherWait as usize] = other;
    times[Stage::RunQueue as usize] = queued;
    times[Stage::Cpu as usize] = total - away;
    times
}

/// Records an operation's stages. Out of line: what waits has time.
///
/// # Safety
/// As of [`by_stage`].
#[inline(never)]
unsafe fn stages(frame: *const Frame, op: u64, total: u64, away: u64) {
    // SAFETY: by contract.
    let (device, times) = unsafe { ((*frame).key.device(), by_stage(frame, total, away)) };
    for (stage, time) in times.into_iter().enumerate() {
        if time != 0 {
            let key = (u64::from(device) << 32) | (op << 16) | stage as u64;
            zfs_record_stage(key, time);
        }
    }
}

/// A global function, which the verifier checks once and by itself: inside its
/// seven callers it would follow every way through all of them together, and
/// give up after a million instructions.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn zfs_record_stage(packed: u64, time: u64) -> u64 {
    let key = StageKey {
        device: (packed >> 32) as u32,
        op: (packed >> 16) as u16,
        stage: packed as u16,
    };
    if let Some(histogram) = accounts::account::<StageAccounts>(&key) {
        // SAFETY: this CPU's own histogram.
        unsafe { record(histogram, time) };
    }
    0
}

/// Tells of a slow operation. Out of line: it is rare.
///
/// # Safety
/// As of [`by_stage`].
#[inline(never)]
unsafe fn tell(frame: *const Frame, op: u64, total: u64, away: u64, result: i64) {
    let Some(mut slot) = EVENTS.reserve::<SlowOperation>(0) else {
        lose(Loss::Event);
        return;
    };
    let event = slot.as_mut_ptr();
    // SAFETY: the slot is reserved for this event and of its size; the frame is
    // one by contract; the helpers only read the current task.
    unsafe {
        (*event).kind = SLOW_OPERATION;
        (*event).device = (*frame).key.device();
        (*event).op = op as u32;
        (*event).process = (bpf_get_current_pid_tgid() >> 32) as u32;
        (*event).sync = (*frame).key.is_sync().into();
        (*event).cgroup = bpf_get_current_cgroup_id();
        (*event).result = result;
        (*event).offset = (*frame).offset;
        (*event).end = (*frame).start + total;
        (*event).total = total;
        (*event).stages = by_stage(frame, total, away);
        (*event).command = bpf_get_current_comm().unwrap_or_default();
    }
    slot.submit(0);
}

/// The return of a read.
#[kretprobe]
pub fn zpl_read_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::Read, Returns::Bytes);
    0
}

/// The return of a write.
#[kretprobe]
pub fn zpl_write_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::Write, Returns::Bytes);
    0
}

/// The return of an fsync.
#[kretprobe]
pub fn zpl_fsync_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::Fsync, Returns::Status);
    0
}

/// The return of an open.
#[kretprobe]
pub fn zpl_open_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::Open, Returns::Status);
    0
}

/// The return of a read of a directory.
#[kretprobe]
pub fn zpl_readdir_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::Readdir, Returns::Status);
    0
}

/// The return of a read-ahead, which returns nothing.
#[kretprobe]
pub fn zpl_readahead_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::MmapRead, Returns::Nothing);
    0
}

/// The return of a read of one page.
#[kretprobe]
pub fn zpl_read_folio_leave(ctx: RetProbeContext) -> u32 {
    end_at_return(&ctx, Op::MmapRead, Returns::Status);
    0
}
