//! What a thread is in: operations of ZFS and, inside them, what they wait
//! for.
//!
//! Each thread has a small stack of its own ([`super::threads`]), so that calls
//! inside calls are told apart. A frame keeps the stack pointer of its function's
//! entry. Stacks grow down: at a later entry or return, a frame whose stack pointer
//! lies below cannot be alive. So a return that the kernel missed costs its own
//! measurement and no other, and is counted.
//!
//! A frame also keeps two accounts that the kernel has of the thread anyway
//! (kernel/sched/stats.h: `sched_info_arrive`, kernel/sched/fair.c:
//! `set_next_entity`). `sched_info.run_delay` grows by the waits on run
//! queues. `sched_info.last_arrival` and `se.prev_sum_exec_runtime` stay what they
//! are while the thread runs. When it comes back, the time of its arrival has grown by
//! all the time since the last, and its sum by that on the CPU. With
//! CONFIG_IRQ_TIME_ACCOUNTING the sum leaves out interrupts, which then count as time
//! away.

use aya_ebpf::{bindings::pt_regs, helpers::bpf_get_current_task_btf};
use kldtrace_abi::{
    loss::Loss,
    zfs::{DEPTH, Frame, HOOKED, Op, OpKey, STAGE_KIND, Stage, Thread},
};

use super::threads::{Seat, seat};
use crate::{
    accounts::lose,
    kernel::{Object, Typed, now, offsets},
};

offsets! {
    OFFSET___task_struct___se___prev_sum_exec_runtime
    OFFSET___task_struct___sched_info___last_arrival
    OFFSET___task_struct___sched_info___run_delay
    OFFSET___task_struct___start_time
}

/// What the stack pointer has grown by when a function has returned: x86 has
/// taken the address off the stack.
#[cfg(bpf_target_arch = "x86_64")]
pub const RETURNED: u64 = 8;
/// Others keep it in a register.
#[cfg(not(bpf_target_arch = "x86_64"))]
pub const RETURNED: u64 = 0;

/// A function that is entered again within so many bytes of stack is the same
/// call, seen by the probe at its entry and then by a trampoline: a trampoline's
/// frame is smaller, and between two calls of one operation lie several functions.
const SAME_CALL: u64 = 256;
/// Unless the probe saw it longer ago than this. Then its return was missed: a
/// probe at returns stays for longer when a trampoline has come
/// (userspace/src/kernel/hold.rs).
const LONG_AGO: u64 = 1_000_000_000;

/// The stack pointer at a probe.
///
/// # Safety
/// `registers` are those of the probe's context.
#[inline(always)]
pub unsafe fn stack_pointer(registers: *const pt_regs) -> u64 {
    // SAFETY: by contract.
    #[cfg(bpf_target_arch = "x86_64")]
    unsafe {
        (*registers).rsp
    }
    // SAFETY: by contract; `struct user_pt_regs` of arm64.
    #[cfg(not(bpf_target_arch = "x86_64"))]
    unsafe {
        (*registers.cast::<[u64; 34]>())[31]
    }
}

/// The thread that runs.
#[inline(always)]
fn current() -> Typed {
    // SAFETY: the helper returns the current task, typed.
    Object(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
}

/// When the task came to this CPU.
#[inline(always)]
fn arrival(task: Typed) -> u64 {
    task.get(&OFFSET___task_struct___sched_info___last_arrival)
}

/// Its time on CPUs until then.
#[inline(always)]
fn ran(task: Typed) -> u64 {
    task.get(&OFFSET___task_struct___se___prev_sum_exec_runtime)
}

/// A thread's outermost frame: mostly its only one.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(always)]
unsafe fn outermost(thread: *mut Thread) -> *mut Frame {
    // SAFETY: by contract.
    unsafe { (&raw mut (*thread).frames).cast() }
}

/// A thread's frame at some depth.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(always)]
unsafe fn frame(thread: *mut Thread, depth: u64) -> *mut Frame {
    // The verifier needs the bound; the compiler would prove it away.
    let depth = core::hint::black_box(depth) & (DEPTH as u64 - 1);
    // SAFETY: in bounds by the line above.
    unsafe { outermost(thread).add(depth as usize) }
}

/// Sets a number to 0, by one instruction. Several together would be set byte by
/// byte, by a `memset` that is no instruction here.
///
/// # Safety
/// It is valid to write.
#[inline(always)]
unsafe fn zero(number: *mut u64) {
    // SAFETY: by contract.
    unsafe { core::ptr::write_volatile(number, 0) }
}

/// Enters an operation. `offset` is where it is in the file, if that is to be noted.
#[inline(always)]
pub fn enter(op: Op, sp: u64, key: OpKey, offset: Option<u64>) {
    let task = current();
    if let Some(thread) = seat(task).take() {
        // SAFETY: the memory belongs to the current thread, and no probe of ours
        // interrupts another of the same thread (kernel/trace/bpf_trace.c:
        // `trace_call_bpf` lets one run on a CPU).
        unsafe {
            (*thread).depth = 1;
            begin(outermost(thread), task, op as u32, sp, key, offset);
        }
    } else {
        enter_further(op as u32, sp, key, offset.unwrap_or_default());
    }
}

/// An operation inside another, or of a thread in task storage. Out of line: most are
/// in no other.
#[inline(never)]
fn enter_further(op: u32, sp: u64, key: OpKey, offset: u64) {
    let task = current();
    let seat = seat(task);
    let Ok(thread) = seat.further(task, true) else {
        lose(Loss::ZfsThread);
        return;
    };
    // SAFETY: as in `enter`.
    unsafe {
        let before = (*thread).depth;
        let depth = around(thread, op, sp, task);
        if depth >= DEPTH as u64 {
            lose(Loss::ZfsThread);
            return;
        }
        if before == 0 {
            seat.count(true);
        }
        (*thread).depth = depth + 1;
        begin(frame(thread, depth), task, op, sp, key, Some(offset));
    }
}

/// Enters a stage. Stages count only inside operations: elsewhere, as in the threads of
/// ZFS itself, this is all.
#[inline(always)]
pub fn enter_stage(stage: Stage, sp: u64) {
    let task = current();
    let seat = seat(task);
    let Ok(thread) = seat.further(task, false) else {
        return;
    };
    let kind = STAGE_KIND + stage as u32;
    // SAFETY: as in `enter`.
    unsafe {
        let before = (*thread).depth;
        let depth = around(thread, kind, sp, task);
        if depth == 0 {
            left_all(seat, thread, before);
        } else if depth >= DEPTH as u64 {
            lose(Loss::ZfsThread);
        } else {
            (*thread).depth = depth + 1;
            let frame = frame(thread, depth);
            (*frame).inner = 0;
            begin(frame, task, kind, sp, OpKey::NOBODY, None);
        }
    }
}

/// # Safety
/// The frame is the current thread's.
#[inline(always)]
unsafe fn begin(
    frame: *mut Frame,
    task: Typed,
    kind: u32,
    sp: u64,
    key: OpKey,
    offset: Option<u64>,
) {
    // SAFETY: by contract.
    unsafe {
        (*frame).sp = sp;
        (*frame).kind = kind;
        (*frame).waited = 0;
        (*frame).key = key;
        if let Some(offset) = offset {
            (*frame).offset = offset;
        }
        (*frame).arrival = arrival(task);
        (*frame).ran = ran(task);
        (*frame).queued = task.get(&OFFSET___task_struct___sched_info___run_delay);
        (*frame).start = now();
    }
}

/// A thread that was in so many frames is in none any more.
///
/// # Safety
/// `thread` is the current thread's memory, and `seat` is it.
#[inline(always)]
unsafe fn left_all(seat: Seat, thread: *mut Thread, before: u64) {
    // SAFETY: by contract.
    unsafe { (*thread).depth = 0 };
    if before != 0 {
        seat.count(false);
    }
    if seat.own().is_some() {
        seat.leave();
    }
}

/// How many frames of a thread are around an entry with this stack pointer;
/// it is in no others any more.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(always)]
unsafe fn around(thread: *mut Thread, kind: u32, sp: u64, task: Typed) -> u64 {
    // SAFETY: by contract.
    unsafe {
        let mut depth = (*thread).depth;
        // What a thread that has ended has left to the next with its number.
        let left =
            depth != 0 && (*outermost(thread)).start < task.get(&OFFSET___task_struct___start_time);
        for _ in 0..DEPTH {
            if depth == 0 || (!left && (*frame(thread, depth - 1)).sp > sp) {
                break;
            }
            lose(Loss::ZfsReturn);
            depth -= 1;
        }
        // The trampoline's own frame takes the place of the probe's: reads alone
        // have both.
        if depth != 0 && kind == Op::Read as u32 {
            let last = frame(thread, depth - 1);
            if (*last).kind == kind && (*last).sp < sp + SAME_CALL {
                if now().wrapping_sub((*last).start) > LONG_AGO {
                    lose(Loss::ZfsReturn);
                }
                depth -= 1;
            }
        }
        depth
    }
}

/// A frame that has ended.
pub struct Ended {
    /// The frame. It stays as it is until [`Ended::done`].
    pub frame: *mut Frame,
    /// Nanoseconds in it.
    pub total: u64,
    /// Of these, off the CPU: [`waits`].
    pub away: u64,
    /// Who was in it.
    pub thread: *mut Thread,
    /// How many frames are around it.
    depth: u64,
    /// Where the thread is.
    seat: Seat,
}

/// The only frame of a thread, of an operation that never left the CPU.
pub struct Only {
    /// The frame. It stays as it is until [`Only::done`].
    pub frame: *mut Frame,
    /// Nanoseconds in it.
    pub total: u64,
    /// Who was in it.
    pub thread: *mut Thread,
    seat: Seat,
}

impl Only {
    /// Leaves it at some time; `None`: it is no such frame, and not left.
    #[inline(always)]
    pub fn leave(kind: u32, sp: u64, now: u64) -> Option<Self> {
        let task = current();
        let seat = seat(task);
        let thread = seat.own()?;
        // SAFETY: as in `enter`.
        unsafe {
            let frame = outermost(thread);
            let is_only = (*thread).depth == 1
                && is(frame, kind, sp)
                && arrival(task) == (*frame).arrival
                && now > (*frame).start;
            is_only.then(|| Self {
                frame,
                total: now - (*frame).start,
                thread,
                seat,
            })
        }
    }

    /// Nothing is read of the frame any more.
    #[inline(always)]
    pub fn done(self) {
        self.seat.leave();
    }
}

/// Leaves a function that is of this kind at some time; `None`: its entry was not
/// seen.
#[inline(always)]
pub fn leave(kind: u32, sp: u64, now: u64) -> Option<Ended> {
    let task = current();
    let seat = seat(task);
    let thread = find(seat, task, kind, sp)?;
    // SAFETY: as in `enter`.
    unsafe {
        let depth = (*thread).depth;
        let frame = frame(thread, depth);
        let total = now.wrapping_sub((*frame).start);
        // Clocks of CPUs may differ by little.
        let total = if total.cast_signed() < 0 { 0 } else { total };
        // What the time of its arrival has grown by more than its sum.
        let away = arrival(task)
            .wrapping_sub((*frame).arrival)
            .wrapping_sub(ran(task).wrapping_sub((*frame).ran));
        // A thread that was given another class or CPU meanwhile may seem to
        // have been away for less than nothing: then it was not.
        let away = if away > total { 0 } else { away };
        Some(Ended {
            frame,
            total,
            away,
            thread,
            depth,
            seat,
        })
    }
}

/// Whether a frame is the one that returns.
///
/// # Safety
/// The frame is the current thread's.
#[inline(always)]
unsafe fn is(frame: *const Frame, kind: u32, sp: u64) -> bool {
    // SAFETY: by contract.
    unsafe { (*frame).sp + RETURNED == sp && (*frame).kind == kind }
}

/// The thread whose innermost frame but for those around it returns; `None`: its entry
/// was not seen.
#[inline(always)]
fn find(seat: Seat, task: Typed, kind: u32, sp: u64) -> Option<*mut Thread> {
    let thread = seat.further(task, false).ok()?;
    // SAFETY: as in `enter`.
    unsafe {
        let before = (*thread).depth;
        let mut depth = before;
        for _ in 0..DEPTH {
            if depth == 0 || (*frame(thread, depth - 1)).sp + RETURNED > sp {
                break;
            }
            depth -= 1;
            if is(frame(thread, depth), kind, sp) {
                (*thread).depth = depth;
                if depth == 0 {
                    seat.count(false);
                }
                return Some(thread);
            }
            lose(Loss::ZfsReturn);
        }
        (*thread).depth = depth;
        if depth == 0 {
            left_all(seat, thread, before);
        }
    }
    None
}

/// Time off the CPU in a frame that has just ended: blocked, and ready to run but
/// waiting for a CPU.
///
/// # Safety
/// The frame is the current thread's.
#[inline(always)]
pub unsafe fn waits(frame: *const Frame, away: u64) -> (u64, u64) {
    let delay: u64 = current().get(&OFFSET___task_struct___sched_info___run_delay);
    // SAFETY: by contract.
    let queued = delay.wrapping_sub(unsafe { (*frame).queued });
    let queued = if queued > away { away } else { queued };
    (away - queued, queued)
}

impl Ended {
    /// Nothing is read of the frame any more.
    #[inline(always)]
    pub fn done(self) {
        if self.depth == 0 && self.seat.own().is_some() {
            self.seat.leave();
        }
    }

    /// Gives a stage's time to the operation around it, and marks it if it
    /// waited for the intent log.
    #[inline(always)]
    pub fn give(&self, stage: usize) {
        // SAFETY: as in `enter`.
        unsafe {
            let (blocked, _) = waits(self.frame, self.away);
            let own = blocked.saturating_sub((*self.frame).inner);
            let mut depth = self.depth;
            for step in 0..DEPTH {
                if depth == 0 {
                    return;
                }
                depth -= 1;
                let outer = frame(self.thread, depth);
                if (*outer).kind < STAGE_KIND {
                    if (*outer).waited == 0 {
                        for stage in 0..HOOKED {
                            zero((&raw mut (*outer).stages).cast::<u64>().add(stage));
                        }
                    }
                    (*outer).stages[stage] += own;
                    (*outer).waited = 1;
                    if stage == Stage::ZilCommit as usize {
                        (*outer).key = (*outer).key.sync();
                    }
                    return;
                }
                if step == 0 {
                    (*outer).inner += blocked;
                }
            }
        }
    }
}
