//! What the ZFS probes keep: by dataset and operation, by stage, by vdev.

use crate::histogram::Histogram;

/// Operations as applications feel them, and the label `op`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u32)]
pub enum Op {
    /// read(2) and its kin: `zpl_iter_read`.
    Read = 0,
    /// write(2) and its kin: `zpl_iter_write`.
    Write = 1,
    /// fsync(2), fdatasync(2): `zpl_fsync`.
    Fsync = 2,
    /// open(2) of a file: `zpl_open`.
    Open = 3,
    /// getdents(2): `zpl_iterate`.
    Readdir = 4,
    /// A page fault in a mapped file: `zpl_readahead`, `zpl_read_folio`.
    MmapRead = 5,
}

impl Op {
    /// All operations, in order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Write,
        Self::Fsync,
        Self::Open,
        Self::Readdir,
        Self::MmapRead,
    ];

    /// The value of the label `op`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Fsync => "fsync",
            Self::Open => "open",
            Self::Readdir => "readdir",
            Self::MmapRead => "mmap_read",
        }
    }
}

/// Where an operation's time went. What an operation took is exactly the sum
/// of its stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Stage {
    /// Blocked in `zio_wait`: mostly for a block that the ARC did not have.
    ArcMiss = 0,
    /// Blocked in `zil_commit`, for the intent log.
    ZilCommit = 1,
    /// Blocked in `dmu_tx_wait`: the write throttle, or no open transaction
    /// group that could take it.
    Throttle = 2,
    /// Blocked until a transaction group is synced or open: `txg_wait_*`.
    TxgWait = 3,
    /// Blocked elsewhere: on a read that somebody else has begun (prefetch,
    /// too), on locks.
    OtherWait = 4,
    /// Ready to run, and waiting for a CPU.
    RunQueue = 5,
    /// On a CPU.
    Cpu = 6,
}

/// Stages that have a hook of their own: the first of [`Stage`].
pub const HOOKED: usize = 4;

impl Stage {
    /// All stages, in order of their numbers.
    pub const ALL: [Self; 7] = [
        Self::ArcMiss,
        Self::ZilCommit,
        Self::Throttle,
        Self::TxgWait,
        Self::OtherWait,
        Self::RunQueue,
        Self::Cpu,
    ];

    /// The value of the label `stage`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ArcMiss => "arc_miss",
            Self::ZilCommit => "zil_commit",
            Self::Throttle => "throttle",
            Self::TxgWait => "txg_wait",
            Self::OtherWait => "other_wait",
            Self::RunQueue => "runqueue",
            Self::Cpu => "cpu",
        }
    }
}

/// [`Frame::kind`] of the first stage; operations come before.
pub const STAGE_KIND: u32 = 16;

/// A function of ZFS that a thread is in.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Frame {
    /// Stack pointer at its entry: tells the frame's own return from others.
    pub sp: u64,
    /// When it was entered, by `CLOCK_MONOTONIC`.
    pub start: u64,
    /// When the thread had come to its CPU; see probes/src/zfs/frames.rs.
    pub arrival: u64,
    /// Its time on CPUs until then.
    pub ran: u64,
    /// Its time on run queues until then.
    pub queued: u64,
    /// Of a stage: blocked time of the stages inside it that have ended.
    pub inner: u64,
    /// Offset in the file, where the operation has one.
    pub offset: u64,
    /// Of an operation: the key of its account.
    pub key: OpKey,
    /// [`Op`], or [`STAGE_KIND`] + [`Stage`].
    pub kind: u32,
    /// Of an operation: 1: it was in a hooked stage.
    pub waited: u32,
    /// Of an operation that was: blocked time in each hooked stage.
    pub stages: [u64; HOOKED],
}

/// Frames that a thread can be in at once.
pub const DEPTH: usize = 4;

/// What a thread is in, innermost last.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    /// Frames in use.
    pub depth: u64,
    /// The account of its last operation of each [`Op`]. There may be room for more
    /// than there are operations.
    pub last: [Found; 8],
    /// The frames.
    pub frames: [Frame; DEPTH],
}

/// An account that was found.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Found {
    /// Its key.
    pub key: OpKey,
    /// Its slot.
    pub slot: u32,
    /// The accounts' generation ([`FIRST_GENERATION`]) at that time.
    pub generation: u32,
}

/// A number that user space raises whenever slots of operations' accounts change their
/// owners: what was found before is to be looked for again. 0 is before all.
pub const FIRST_GENERATION: u32 = 1;

/// Key of an [`Operations`] account, in one word: programs make and compare it
/// in a register.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct OpKey(u64);

/// Key of a stage's histogram.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StageKey {
    /// Device number of the dataset's mount; [`OTHER_DEVICE`] where the map is
    /// full.
    pub device: u32,
    /// [`Op`].
    pub op: u16,
    /// [`Stage`].
    pub stage: u16,
}

/// What found no room.
pub const OTHER_DEVICE: u32 = u32::MAX;

impl OpKey {
    /// Of a slot that nobody owns: no mount has this device number.
    pub const NOBODY: Self = Self::new(OTHER_DEVICE, Op::Read);

    /// Of a dataset's mount by its device number, and of an operation that does
    /// not wait for the intent log.
    #[inline(always)]
    pub const fn new(device: u32, op: Op) -> Self {
        Self(device as u64 | (op as u64) << 32)
    }

    /// The same of an operation that waits for the intent log.
    #[inline(always)]
    #[must_use]
    pub const fn sync(self) -> Self {
        Self(self.0 | 1 << 48)
    }

    /// Device number of the dataset's mount.
    #[inline(always)]
    pub const fn device(self) -> u32 {
        self.0 as u32
    }

    /// The operation, where the key has one.
    pub const fn op(self) -> Option<Op> {
        let op = (self.0 >> 32) as u16 as usize;
        if op < Op::ALL.len() {
            Some(Op::ALL[op])
        } else {
            None
        }
    }

    /// Whether it waited for the intent log.
    #[inline(always)]
    pub const fn is_sync(self) -> bool {
        self.0 >> 48 == 1
    }
}

impl StageKey {
    /// What found no room.
    pub const OTHER: Self = Self {
        device: OTHER_DEVICE,
        op: Op::Read as u16,
        stage: Stage::OtherWait as u16,
    };
}

/// Account of a dataset's operations of one kind on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Operations {
    /// Bytes read or written.
    pub bytes: u64,
    /// Operations that returned an error.
    pub errors: u64,
    /// Operations that never left the CPU.
    pub from_memory: u64,
    /// From call to return. Behind the rest, which so lies beside its sum.
    pub latency: Histogram,
}

/// Key of a [`Vdev`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VdevKey {
    /// GUID of the vdev; [`crate::OTHER`] where the map is full.
    pub vdev: u64,
    /// `enum zio_type` (include/sys/fs/zfs.h).
    pub kind: u32,
    /// `enum zio_priority` (include/sys/zio_priority.h).
    pub priority: u32,
}

impl VdevKey {
    /// What found no room.
    pub const OTHER: Self = Self {
        vdev: crate::OTHER,
        kind: 0,
        priority: 0,
    };
}

/// Account of a leaf vdev's requests of one type and priority on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Vdev {
    /// From the request's arrival to its issue to the device.
    pub queue: Histogram,
    /// From issue to completion.
    pub device: Histogram,
    /// Bytes of requests that succeeded.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}

/// Key of a [`LogWrites`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LogKey {
    /// GUID of the vdev; [`crate::OTHER`] where the map is full.
    pub vdev: u64,
    /// Object set whose intent log it is.
    pub objset: u64,
}

impl LogKey {
    /// What found no room.
    pub const OTHER: Self = Self {
        vdev: crate::OTHER,
        objset: 0,
    };
}

/// Intent-log writes of a dataset to a vdev on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct LogWrites {
    /// From the write's arrival to its issue to the device.
    pub queue: Histogram,
    /// From issue to completion.
    pub device: Histogram,
}

/// Longest name of a pool or path of a vdev that is kept, with its closing
/// zero (include/sys/fs/zfs.h: `ZFS_MAX_DATASET_NAME_LEN` is 256).
pub const NAME: usize = 256;

/// What a vdev is called, as of its first request.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct VdevNames {
    /// Its pool.
    pub pool: [u8; NAME],
    /// Its path.
    pub path: [u8; NAME],
    /// 1: the pool has it for the intent log only.
    pub log: u64,
    /// 1: ZFS has made the partition on it.
    pub whole_disk: u64,
    /// Its kind, as `mirror`.
    pub kind: [u8; 16],
    /// Its number among its siblings.
    pub number: u64,
}

/// A sync of a transaction group under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Sync {
    /// GUID of the pool.
    pub pool: u64,
    /// When it began, by `CLOCK_MONOTONIC`.
    pub start: u64,
}

/// [`SlowOperation::kind`].
pub const SLOW_OPERATION: u32 = 1;

/// An operation that took longer than the threshold.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct SlowOperation {
    /// [`SLOW_OPERATION`].
    pub kind: u32,
    /// Device number of the dataset's mount.
    pub device: u32,
    /// [`Op`].
    pub op: u32,
    /// Thread group id: what people call the process id.
    pub process: u32,
    /// 1: it waited for the intent log.
    pub sync: u64,
    /// Cgroup of the thread.
    pub cgroup: u64,
    /// What it returned: bytes, or a negative error number.
    pub result: i64,
    /// Offset in the file.
    pub offset: u64,
    /// When it ended, by `CLOCK_MONOTONIC`.
    pub end: u64,
    /// What it took, in nanoseconds.
    pub total: u64,
    /// Nanoseconds by [`Stage`].
    pub stages: [u64; Stage::ALL.len()],
    /// The thread's name.
    pub command: [u8; 16],
}
