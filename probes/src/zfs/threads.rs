//! Where it is kept what a thread is in.
//!
//! Mostly in a table, at the place that the thread's number leads to: task storage
//! takes as long as all the rest of a read's entry. A thread has its place only
//! while it is in an operation. Who finds it taken, by a thread whose number leads
//! to the same, goes to its task storage, and the place counts those.
//!
//! Where a return is missed and the thread ends, its place stays taken: the next
//! thread with its number goes on with it ([`super::frames`]), others with the same
//! place use task storage.

use core::cell::UnsafeCell;

use aya_ebpf::{bindings::BPF_LOCAL_STORAGE_GET_F_CREATE, macros::btf_map};
use kldtrace_abi::zfs::Thread;

use crate::{
    atomic,
    kernel::{Typed, offsets},
    storage::TaskStorage,
};

offsets! {
    OFFSET___task_struct___pid
}

/// Places: a power of two. Threads that work at the same thing have numbers that
/// follow each other, and so places of their own.
const PLACES: usize = 1024;

/// A thread and who it is.
#[repr(C)]
struct Place {
    /// Number of the thread that has this place; 0: none, and the thread below is
    /// in nothing.
    owner: u32,
    /// Threads with this place that are in operations, and have it in task storage.
    elsewhere: u32,
    thread: Thread,
}

/// One global, as the address of a map's entry would be asked for first.
struct Table(UnsafeCell<[Place; PLACES]>);

// SAFETY: a place is used by its owner alone, and both counts in one piece.
unsafe impl Sync for Table {}

// SAFETY: of numbers, which may be 0.
static TABLE: Table = unsafe { core::mem::zeroed() };

#[btf_map]
static THREADS: TaskStorage<Thread> = TaskStorage::new();

/// The current thread's place, whosever it is.
#[derive(Clone, Copy)]
pub struct Seat {
    place: *mut Place,
    number: u32,
}

/// Of the current thread.
#[inline(always)]
pub fn seat(task: Typed) -> Seat {
    let number: u32 = task.get(&OFFSET___task_struct___pid);
    let place = TABLE.0.get().cast::<Place>();
    Seat {
        place: place.wrapping_add(number as usize & (PLACES - 1)),
        number,
    }
}

impl Seat {
    #[inline(always)]
    fn word(self) -> *mut u64 {
        self.place.cast()
    }

    #[inline(always)]
    fn thread(self) -> *mut Thread {
        // SAFETY: a place of the table.
        unsafe { &raw mut (*self.place).thread }
    }

    /// Takes the place of a thread that is in nothing yet. `None`: it is in something
    /// already, or has to go to task storage ([`Seat::further`]).
    #[inline(always)]
    pub fn take(self) -> Option<*mut Thread> {
        // Nobody has it, and nobody is elsewhere for it, such as this thread.
        // SAFETY: a place of the table.
        let taken = unsafe { atomic::take(self.word(), self.number.into()) };
        taken.then(|| self.thread())
    }

    /// The thread, if it is in something and has the place.
    #[inline(always)]
    pub fn own(self) -> Option<*mut Thread> {
        // SAFETY: a place of the table, whose owner only this thread makes its own.
        let owner = unsafe { (&raw const (*self.place).owner).read_volatile() };
        (owner == self.number).then(|| self.thread())
    }

    /// The thread, where [`Seat::take`] did not get the place, or [`Seat::own`] has it
    /// not. With `make` it need not be in anything.
    ///
    /// # Errors
    /// With `make`, where there is no memory; without, where it is in nothing.
    #[inline(always)]
    pub fn further(self, task: Typed, make: bool) -> Result<*mut Thread, ()> {
        if let Some(thread) = self.own() {
            return Ok(thread);
        }
        // SAFETY: a place of the table.
        let elsewhere = unsafe { (&raw const (*self.place).elsewhere).read_volatile() };
        if elsewhere == 0 && !make {
            return Err(());
        }
        let create = if make {
            BPF_LOCAL_STORAGE_GET_F_CREATE
        } else {
            0
        };
        THREADS.get(task, create).ok_or(())
    }

    /// The thread enters its outermost operation, or leaves it where it is in task
    /// storage. Where it has the place it keeps it until [`Seat::leave`].
    #[inline(always)]
    pub fn count(self, enters: bool) {
        if self.own().is_none() {
            let one = 1_u64 << 32;
            let change = if enters { one } else { one.wrapping_neg() };
            // SAFETY: a place of the table.
            unsafe { atomic::add(self.word(), change) };
        }
    }

    /// The thread, which has the place ([`Seat::own`]), is in nothing any more, and
    /// gives it back.
    #[inline(always)]
    pub fn leave(self) {
        // SAFETY: a place of the table, and this thread's. What is counted beside it
        // others may be changing. x86 has done all loads before.
        unsafe { (&raw mut (*self.place).owner).write_volatile(0) };
    }
}
