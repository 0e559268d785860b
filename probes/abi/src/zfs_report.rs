//! What the ZFS probes keep of ZFS's own reports of trouble.

/// Longest class of a report that is kept, with its closing zero; the longest
/// that ZFS has is `config_cache_write` (include/sys/fm/fs/zfs.h).
pub const CLASS: usize = 24;

/// Key of a [`Reports`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ReportKey {
    /// GUID of the vdev, or of the pool where the report is of all of it;
    /// [`crate::OTHER`] where the map is full.
    pub vdev: u64,
    /// The class, as `ereport.fs.zfs.CLASS` ends.
    pub class: [u8; CLASS],
}

impl ReportKey {
    /// What found no room.
    pub const OTHER: Self = Self {
        vdev: crate::OTHER,
        class: [0; CLASS],
    };
}

/// Reports of one class about one vdev on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reports {
    /// How many.
    pub count: u64,
}

/// Reports that are told as events in a second, at most: a device that dies
/// makes thousands.
pub const REPORTS_PER_SECOND: u64 = 50;

/// How many were told.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Told {
    /// In this second, by `CLOCK_MONOTONIC`.
    pub second: u64,
    /// So many, also those that were one too many.
    pub reports: u64,
}

/// [`Report::kind`].
pub const REPORT: u32 = 2;

/// [`Report::request_type`] of a report that is of no request.
pub const NO_REQUEST: u32 = u32::MAX;

/// A report that ZFS has made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Report {
    /// [`REPORT`].
    pub kind: u32,
    /// `enum zio_type` of the request; [`NO_REQUEST`].
    pub request_type: u32,
    /// `enum zio_priority` of the request.
    pub priority: u32,
    /// Error of the request: an errno, or 0.
    pub error: u32,
    /// What it is about, and its class.
    pub about: ReportKey,
    /// When it was made, by `CLOCK_MONOTONIC`.
    pub at: u64,
    /// Nanoseconds of the request in its device; 0 while it is there still.
    pub delay: u64,
    /// Where on the vdev, in bytes.
    pub offset: u64,
    /// Bytes of the request.
    pub size: u64,
    /// Object set of the block.
    pub objset: u64,
    /// Object of the block.
    pub object: u64,
}
