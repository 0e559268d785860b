//! What the ZFS probes keep of the tasks of ZFS's threads.

/// Key of a queue's histogram.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TaskqKey {
    /// Name of the queue, as `z_wr_iss`; empty where the map is full.
    pub name: [u8; 32],
}

impl TaskqKey {
    /// What found no room.
    pub const OTHER: Self = Self { name: [0; 32] };
}

/// A task that waits.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Task {
    /// Address of its queue.
    pub queue: u64,
    /// Its number there.
    pub id: u64,
}
