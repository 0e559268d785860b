//! What the block probe keeps for each device and operation.

use crate::histogram::Histogram;

/// Operations, as the label `op` shows them; numbers from `enum req_op`
/// (include/linux/blk_types.h) are folded into these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Op {
    /// `REQ_OP_READ`.
    Read = 0,
    /// `REQ_OP_WRITE`.
    Write = 1,
    /// `REQ_OP_FLUSH`.
    Flush = 2,
    /// `REQ_OP_DISCARD`.
    Discard = 3,
    /// All others: write zeroes, secure erase, zones, driver commands.
    Other = 4,
}

impl Op {
    /// All operations, in order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::Other,
    ];

    /// The value of the label `op`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::Discard => "discard",
            Self::Other => "other",
        }
    }
}

/// Key of a [`Block`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BlockKey {
    /// Major and first minor number of the disk, in one word, as keys are
    /// compared by words.
    device: u64,
    /// [`Op`] as a number.
    pub op: u64,
}

impl BlockKey {
    /// Of a slot that nobody owns: no disk has this major number.
    pub const NOBODY: Self = Self::new(u32::MAX, u32::MAX, u64::MAX);

    /// Of a disk and an operation.
    #[inline(always)]
    pub const fn new(major: u32, minor: u32, op: u64) -> Self {
        Self {
            device: (major as u64) << 32 | minor as u64,
            op,
        }
    }

    /// Major number of the disk.
    pub const fn major(self) -> u32 {
        (self.device >> 32) as u32
    }

    /// First minor number of the disk.
    pub const fn minor(self) -> u32 {
        self.device as u32
    }
}

/// Block account of one device and operation on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Block {
    /// Bytes completed.
    pub bytes: u64,
    /// Requests completed, with or without time stamps.
    pub requests: u64,
    /// Requests that ended in an error.
    pub errors: u64,
    /// From the request's start to its issue to the device. Behind the rest, which
    /// so lies beside its sum.
    pub queue: Histogram,
    /// From issue to completion.
    pub device: Histogram,
}
