//! What a thread is in: operations of ZFS and, inside them, what they wait
//! for.
//!
//! Each thread has a small stack of its own, so that calls inside calls are
//! told apart and nothing is left behind when a thread ends. A frame keeps the
//! stack pointer of its function's entry. Stacks grow down: at a later entry
//! or return, a frame whose stack pointer lies below cannot be alive. So a
//! return that the kernel missed costs its own measurement and no other, and
//! is counted.
//!
//! A frame also keeps two accounts that the kernel has of the thread anyway
//! (kernel/sched/stats.h: `sched_info_arrive`, kernel/sched/fair.c:
//! `set_next_entity`). `sched_info.run_delay` grows by the waits on run
//! queues. `sched_info.last_arrival` minus `se.prev_sum_exec_runtime` stays
//! what it is while the thread runs, and grows by the time off the CPU when it
//! comes back: the time of its arrival grows by all the time since the last,
//! its sum by that on the CPU. With CONFIG_IRQ_TIME_ACCOUNTING the sum leaves
//! out interrupts, which then count as time away.

use aya_ebpf::{
    bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, pt_regs},
    helpers::bpf_get_current_task_btf,
    macros::btf_map,
};
use kldtrace_abi::{
    loss::Loss,
    zfs::{DEPTH, Frame, HOOKED, Op, STAGE_KIND, Stage, Thread},
};

use crate::{
    accounts::lose,
    kernel::{Object, Typed, now, offsets},
    storage::TaskStorage,
};

offsets! {
    OFFSET___task_struct___se___prev_sum_exec_runtime
    OFFSET___task_struct___sched_info___last_arrival
    OFFSET___task_struct___sched_info___run_delay
}

#[btf_map]
static THREADS: TaskStorage<Thread> = TaskStorage::new();

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

/// Time off the CPU; only differences mean something.
#[inline(always)]
fn away(task: Typed) -> u64 {
    let arrival: u64 = task.get(&OFFSET___task_struct___sched_info___last_arrival);
    arrival.wrapping_sub(task.get(&OFFSET___task_struct___se___prev_sum_exec_runtime))
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

/// Enters a function; `fill` writes what the frame says of it. Stages count
/// only inside operations: elsewhere, as in the threads of ZFS itself, a stage
/// is left at once.
#[inline(always)]
pub fn enter(kind: u32, sp: u64, fill: impl FnOnce(*mut Frame)) {
    let task = current();
    let create = if kind < STAGE_KIND {
        BPF_LOCAL_STORAGE_GET_F_CREATE
    } else {
        0
    };
    let Some(thread) = THREADS.get(task, create) else {
        if kind < STAGE_KIND {
            lose(Loss::ZfsThread);
        }
        return;
    };
    // SAFETY: the memory belongs to the current thread, and no probe of ours
    // interrupts another of the same thread (kernel/trace/bpf_trace.c:
    // `trace_call_bpf` lets one run on a CPU).
    unsafe {
        let mut depth = (*thread).depth;
        let frame = if depth == 0 {
            if kind >= STAGE_KIND {
                return;
            }
            outermost(thread)
        } else {
            depth = around(thread, kind, sp);
            if depth >= DEPTH as u64 {
                lose(Loss::ZfsThread);
                return;
            }
            if kind >= STAGE_KIND && depth == 0 {
                return;
            }
            frame(thread, depth)
        };
        (*frame).sp = sp;
        (*frame).kind = kind;
        if kind < STAGE_KIND {
            (*frame).waited = 0;
        } else {
            (*frame).inner = 0;
        }
        fill(frame);
        (*frame).away = away(task);
        (*frame).queued = task.get(&OFFSET___task_struct___sched_info___run_delay);
        (*thread).depth = depth + 1;
        (*frame).start = now();
    }
}

/// How many frames of a thread are around an entry with this stack pointer;
/// it is in no others any more. Out of line: most operations are in none.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(never)]
unsafe fn around(thread: *mut Thread, kind: u32, sp: u64) -> u64 {
    // SAFETY: by contract.
    unsafe {
        let mut depth = (*thread).depth;
        for _ in 0..DEPTH {
            if depth == 0 || (*frame(thread, depth - 1)).sp > sp {
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
        (*thread).depth = depth;
        depth
    }
}

/// A frame that has ended.
pub struct Ended {
    /// The frame. It stays as it is until the thread enters another.
    pub frame: *mut Frame,
    /// Nanoseconds in it.
    pub total: u64,
    /// Of these, off the CPU: [`waits`].
    pub away: u64,
    /// Who was in it.
    pub thread: *mut Thread,
    /// How many frames are around it.
    depth: u64,
}

/// Leaves a function that is of this kind; `None`: its entry was not seen.
#[inline(always)]
pub fn leave(kind: u32, sp: u64) -> Option<Ended> {
    let now = now();
    let task = current();
    let thread = THREADS.get(task, 0)?;
    // SAFETY: as in `enter`.
    unsafe {
        let first = outermost(thread);
        let (frame, depth) = if (*thread).depth == 1 && is(first, kind, sp) {
            (first, 0)
        } else {
            let depth = find(thread, kind, sp);
            if depth >= DEPTH as u64 {
                return None;
            }
            (frame(thread, depth), depth)
        };
        (*thread).depth = depth;
        let total = now.wrapping_sub((*frame).start);
        // Clocks of CPUs may differ by little.
        let total = if total.cast_signed() < 0 { 0 } else { total };
        let away = away(task).wrapping_sub((*frame).away);
        // A thread that was given another class or CPU meanwhile may seem to
        // have been away for less than nothing: then it was not.
        let away = if away > total { 0 } else { away };
        Some(Ended {
            frame,
            total,
            away,
            thread,
            depth,
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

/// How many frames are around the one that returns; [`DEPTH`]: its entry was not
/// seen. Out of line: most operations have no other around them.
///
/// # Safety
/// `thread` is the current thread's memory.
#[inline(never)]
unsafe fn find(thread: *mut Thread, kind: u32, sp: u64) -> u64 {
    // SAFETY: by contract.
    unsafe {
        let mut depth = (*thread).depth;
        for _ in 0..DEPTH {
            if depth == 0 || (*frame(thread, depth - 1)).sp + RETURNED > sp {
                break;
            }
            depth -= 1;
            if is(frame(thread, depth), kind, sp) {
                return depth;
            }
            lose(Loss::ZfsReturn);
        }
        (*thread).depth = depth;
        DEPTH as u64
    }
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
