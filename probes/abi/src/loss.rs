//! What can be lost in the kernel, and where it is counted.

/// Index into the probes' `LOSSES` map: one counter per CPU for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Loss {
    /// A task's cgroup has no slot in the scheduler accounts: what it does is
    /// counted as `other`. Counted at each switch and migration of such a task.
    SchedSeries = 0,
    /// Labels found no room in the TCP accounts; counted as `other`.
    TcpSeries = 1,
    /// A device found no room in the block accounts; counted as `other`.
    BlockSeries = 2,
    /// A departure could not be stored: one off-CPU time is missing.
    SchedDeparture = 3,
    /// A socket found no room in the map of sockets: its latencies are missing.
    TcpStart = 4,
    /// An event found the ring buffer full.
    Event = 5,
    /// A request completed without the kernel's own time stamps (statistics
    /// are off for its queue): it is counted, its latencies are missing.
    BlockStamp = 6,
    /// A connection was accepted where the probe does not see it (a call of
    /// accept without an address buffer, or io_uring).
    TcpAccept = 7,
    /// Labels found no room in the accounts of ZFS; counted as `other`.
    ZfsSeries = 8,
    /// A thread was in more functions of ZFS at once than are followed, or
    /// there was no memory for what it is in: one measurement is missing.
    ZfsThread = 9,
    /// The kernel missed the return of a function of ZFS: one measurement is
    /// missing.
    ZfsReturn = 10,
    /// Labels found no room in the WireGuard accounts; counted as `other`.
    WireguardSeries = 11,
    /// A handshake found no room in the map of those under way: its time is
    /// missing.
    WireguardStart = 12,
    /// A peer found no room in the list of peers, or lies behind the first
    /// thousand of its interface: its bytes and last handshake are missing.
    WireguardPeer = 13,
    /// A handshake or failure was not told as an event, as there were too many
    /// of its kind in that second. It is counted all the same.
    WireguardEvent = 14,
    /// A request to a volume of ZFS found no room in the map of those under
    /// way: it is not counted.
    ZfsZvolStart = 15,
    /// More reports of ZFS were being made at once than are followed: one is
    /// not counted.
    ZfsReport = 16,
    /// More syncs were under way at once than are followed: the time of one is
    /// missing.
    ZfsSync = 17,
    /// A task of ZFS found no room in the map of those that wait: its wait is
    /// missing.
    ZfsTask = 18,
    /// A report of ZFS was not told as an event, as there were too many in
    /// that second. It is counted all the same.
    ZfsEvent = 19,
    /// A dropped packet was not told as an event, as there were too many in
    /// that second. It is counted all the same.
    PlaneEvent = 20,
    /// A flow of a plane could not be kept: its answers are judged by the
    /// rules, until the next packet that leaves.
    PlaneFlow = 21,
    /// What a source has sent gave way to what another has: it has its whole
    /// share again.
    PlaneRate = 22,
}

impl Loss {
    /// All losses, in order of their numbers.
    pub const ALL: [Self; 23] = [
        Self::SchedSeries,
        Self::TcpSeries,
        Self::BlockSeries,
        Self::SchedDeparture,
        Self::TcpStart,
        Self::Event,
        Self::BlockStamp,
        Self::TcpAccept,
        Self::ZfsSeries,
        Self::ZfsThread,
        Self::ZfsReturn,
        Self::WireguardSeries,
        Self::WireguardStart,
        Self::WireguardPeer,
        Self::WireguardEvent,
        Self::ZfsZvolStart,
        Self::ZfsReport,
        Self::ZfsSync,
        Self::ZfsTask,
        Self::ZfsEvent,
        Self::PlaneEvent,
        Self::PlaneFlow,
        Self::PlaneRate,
    ];

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SchedSeries => "sched_series",
            Self::TcpSeries => "tcp_series",
            Self::BlockSeries => "block_series",
            Self::SchedDeparture => "sched_departure",
            Self::TcpStart => "tcp_start",
            Self::Event => "event",
            Self::BlockStamp => "block_stamp",
            Self::TcpAccept => "tcp_accept",
            Self::ZfsSeries => "zfs_series",
            Self::ZfsThread => "zfs_thread",
            Self::ZfsReturn => "zfs_return",
            Self::WireguardSeries => "wireguard_series",
            Self::WireguardStart => "wireguard_start",
            Self::WireguardPeer => "wireguard_peer",
            Self::WireguardEvent => "wireguard_event",
            Self::ZfsZvolStart => "zfs_zvol_start",
            Self::ZfsReport => "zfs_report",
            Self::ZfsSync => "zfs_sync",
            Self::ZfsTask => "zfs_task",
            Self::ZfsEvent => "zfs_event",
            Self::PlaneEvent => "plane_event",
            Self::PlaneFlow => "plane_flow",
            Self::PlaneRate => "plane_rate",
        }
    }
}
