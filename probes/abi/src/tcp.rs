//! What the TCP probes keep for each cgroup, interface and address family.

use crate::{histogram::Histogram, places::place};

/// States of include/net/tcp_states.h, in order, beginning at 1.
pub const STATES: [&str; 12] = [
    "established",
    "syn_sent",
    "syn_recv",
    "fin_wait1",
    "fin_wait2",
    "time_wait",
    "close",
    "close_wait",
    "last_ack",
    "listen",
    "closing",
    "new_syn_recv",
];

/// Why a connect failed, as `sk_err` tells (include/uapi/asm-generic/errno.h).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum ConnectFailure {
    /// `ECONNREFUSED`: the peer answered with a reset.
    Refused = 0,
    /// `ETIMEDOUT`: nobody answered.
    Timeout = 1,
    /// `EHOSTUNREACH`, `ENETUNREACH`: a router or this host knows no way;
    /// `EACCES`: an IPv6 router or firewall forbids it, for which IPv4 has
    /// `EHOSTUNREACH` (net/ipv6/icmp.c: `tab_unreach`).
    Unreachable = 2,
    /// No error on the socket: this side gave up or found no route or port.
    Aborted = 3,
    /// Any other error.
    Other = 4,
}

impl ConnectFailure {
    /// All reasons, in order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::Refused,
        Self::Timeout,
        Self::Unreachable,
        Self::Aborted,
        Self::Other,
    ];

    /// The reason for a socket's error number.
    #[inline(always)]
    pub const fn from_errno(errno: i32) -> Self {
        match errno {
            111 => Self::Refused,
            110 => Self::Timeout,
            101 | 113 | 13 => Self::Unreachable,
            0 => Self::Aborted,
            _ => Self::Other,
        }
    }

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Aborted => "aborted",
            Self::Other => "other",
        }
    }
}

/// What was retransmitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Retransmit {
    /// Segments of data, or a FIN.
    Data = 0,
    /// The SYN of an active connect.
    Syn = 1,
    /// The SYN-ACK of a passive one.
    SynAck = 2,
}

impl Retransmit {
    /// All kinds, in order of their numbers.
    pub const ALL: [Self; 3] = [Self::Data, Self::Syn, Self::SynAck];

    /// The value of the label `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Syn => "syn",
            Self::SynAck => "synack",
        }
    }
}

/// Key of a [`Tcp`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TcpKey {
    /// The socket's cgroup; 0 where there is no socket.
    pub cgroup: u64,
    /// Name of the interface of the socket's route; zeros where it has none.
    pub interface: [u64; 2],
    /// `AF_INET` (2), `AF_INET6` (10), or 0.
    pub family: u64,
}

impl TcpKey {
    /// Of a slot that nobody owns: no word of it is in a socket's.
    pub const NOBODY: Self = Self {
        cgroup: u64::MAX,
        interface: [u64::MAX; 2],
        family: u64::MAX,
    };
}

/// TCP account of one key on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Tcp {
    /// From SYN sent to established.
    pub connect: Histogram,
    /// From established to taken out of the accept queue.
    pub accept: Histogram,
    /// Smoothed round-trip time, at each received segment.
    pub srtt: Histogram,
    /// From established to closed.
    pub lifetime: Histogram,
    /// Bytes of data sent for the first time, counted at close.
    pub sent_bytes: u64,
    /// Bytes of data received in order, counted at close.
    pub received_bytes: u64,
    /// Segments retransmitted, by [`Retransmit`].
    pub retransmits: [u64; 3],
    /// Resets sent.
    pub resets_sent: u64,
    /// Resets received.
    pub resets_received: u64,
    /// Failed connects, by [`ConnectFailure`].
    pub failures: [u64; 5],
    /// Changes into a state; index 0 is `established` (1).
    pub states: [u64; 12],
}

/// What a socket is doing, of those that are remembered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Phase {
    /// Its SYN is not answered yet.
    Connecting = 0,
    /// It is established, and waits in the accept queue.
    Queued = 1,
    /// It is established, and somebody has it.
    Open = 2,
}

/// What is remembered of a socket while it lives.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    /// Address of the kernel's `struct sock`; 0: this place is free.
    pub address: u64,
    /// When it was established, and before that when the SYN was sent, by
    /// `CLOCK_MONOTONIC`.
    pub since: u64,
    /// [`Phase`] as a number.
    pub phase: u32,
    /// Whether it lies in another set than its own: 1, else 0.
    pub elsewhere: u16,
    /// Keeps the size a multiple of eight.
    pub padding: u16,
    /// The interface of its last route, as in [`TcpKey`].
    pub interface: [u64; 2],
}
place!(Socket);
