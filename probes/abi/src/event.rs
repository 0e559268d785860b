//! Rare facts that the probes send through the ring buffer.

/// Longest path that a [`CgroupEvent`] carries, with its closing zero.
pub const PATH: usize = 256;

/// A cgroup came or went.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CgroupEvent {
    /// [`CGROUP_MADE`] or [`CGROUP_REMOVED`].
    pub kind: u32,
    /// Bytes in `path` with the closing zero; [`PATH`] when it was cut.
    pub length: u32,
    /// The cgroup's id: its inode number in the cgroup file system.
    pub id: u64,
    /// Path below the root of the hierarchy.
    pub path: [u8; PATH],
}

/// [`CgroupEvent::kind`]: made.
pub const CGROUP_MADE: u32 = 1;
/// [`CgroupEvent::kind`]: removed.
pub const CGROUP_REMOVED: u32 = 2;
