//! What the ZFS probes keep of block devices that are volumes of ZFS.

use crate::{block, histogram::Histogram};

/// Key of a [`Zvol`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ZvolKey {
    /// Device number of the whole disk; [`crate::zfs::OTHER_DEVICE`] where the
    /// map is full.
    pub device: u32,
    /// [`block::Op`].
    pub op: u32,
}

impl ZvolKey {
    /// What found no room.
    pub const OTHER: Self = Self {
        device: crate::zfs::OTHER_DEVICE,
        op: block::Op::Other as u32,
    };
}

/// Account of a volume's requests of one kind on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Zvol {
    /// From the request's arrival at ZFS to its end.
    pub latency: Histogram,
    /// Bytes of requests that succeeded.
    pub bytes: u64,
    /// Requests that failed.
    pub errors: u64,
}
