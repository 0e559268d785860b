//! What the WireGuard probes keep for each interface and peer.

use crate::histogram::Histogram;

/// Which side of a handshake this node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Role {
    /// It sent the initiation.
    Initiator = 0,
    /// It answered one.
    Responder = 1,
}

impl Role {
    /// Both, in order of their numbers.
    pub const ALL: [Self; 2] = [Self::Initiator, Self::Responder];

    /// The value of the label `role`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiator => "initiator",
            Self::Responder => "responder",
        }
    }
}

/// Why a handshake began, by the session that was there before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Why {
    /// There was none: this is no rekey.
    New = 0,
    /// It was old enough to be renewed in time.
    Age = 1,
    /// It was too old to be used any more.
    Expired = 2,
    /// It was still young: one side had heard nothing for 15 s, or had lost
    /// its session.
    Early = 3,
}

/// REKEY_AFTER_TIME of the protocol, in nanoseconds
/// (<https://www.wireguard.com/papers/wireguard.pdf>, 6.1).
pub const REKEY_AFTER: u64 = 120_000_000_000;
/// REJECT_AFTER_TIME of the protocol, in nanoseconds.
pub const REJECT_AFTER: u64 = 180_000_000_000;

impl Why {
    /// All reasons, in order of their numbers.
    pub const ALL: [Self; 4] = [Self::New, Self::Age, Self::Expired, Self::Early];

    /// The reason, by the age of the session in nanoseconds.
    #[inline(always)]
    pub const fn from_age(age: u64) -> Self {
        if age >= REJECT_AFTER {
            Self::Expired
        } else if age >= REKEY_AFTER {
            Self::Age
        } else {
            Self::Early
        }
    }

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Age => "age",
            Self::Expired => "expired",
            Self::Early => "early",
        }
    }
}

/// Messages of a handshake. Their numbers on the wire are one higher
/// (drivers/net/wireguard/messages.h: `enum message_type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Message {
    /// The first.
    Initiation = 0,
    /// Its answer.
    Response = 1,
    /// "Show first that packets to your address reach you."
    Cookie = 2,
}

impl Message {
    /// All messages, in order of their numbers.
    pub const ALL: [Self; 3] = [Self::Initiation, Self::Response, Self::Cookie];

    /// The value of the label `message`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Initiation => "initiation",
            Self::Response => "response",
            Self::Cookie => "cookie",
        }
    }
}

/// What went wrong with a message of a handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Failure {
    /// No answer came in time (5 s and a jitter); it is tried again.
    NoAnswer = 0,
    /// No answer came to the last of 20 attempts.
    GaveUp = 1,
    /// A message with a MAC that is not for this interface's key.
    InvalidMac = 2,
    /// Under load: the sender was asked for a cookie.
    CookieRequired = 3,
    /// Under load: the sender had a cookie and sent too much.
    RateLimited = 4,
    /// An initiation for this key that does not decrypt.
    Undecryptable = 5,
    /// An initiation from a key that is no peer.
    UnknownPeer = 6,
    /// An initiation within 20 ms of the last one.
    Flood = 7,
    /// An initiation with a time stamp that is not new, or does not decrypt.
    Replay = 8,
    /// A response to no initiation under way, or made with another preshared
    /// key.
    Response = 9,
}

impl Failure {
    /// All failures, in order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::NoAnswer,
        Self::GaveUp,
        Self::InvalidMac,
        Self::CookieRequired,
        Self::RateLimited,
        Self::Undecryptable,
        Self::UnknownPeer,
        Self::Flood,
        Self::Replay,
        Self::Response,
    ];

    /// The value of the label `reason`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::GaveUp => "gave_up",
            Self::InvalidMac => "invalid_mac",
            Self::CookieRequired => "cookie_required",
            Self::RateLimited => "rate_limited",
            Self::Undecryptable => "undecryptable",
            Self::UnknownPeer => "unknown_peer",
            Self::Flood => "flood",
            Self::Replay => "replay",
            Self::Response => "response_refused",
        }
    }
}

/// Key of a [`Peer`] account.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PeerKey {
    /// Name of the interface.
    pub interface: [u64; 2],
    /// The peer's public key; zeros where no peer is known.
    pub peer: [u64; 4],
}

impl PeerKey {
    /// What found no room.
    pub const OTHER: Self = Self {
        interface: [crate::OTHER; 2],
        peer: [crate::OTHER; 4],
    };
}

/// Account of one interface and peer. Handshakes are rare, so all CPUs share
/// it and add to it with atomic instructions.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Peer {
    /// Time of handshakes, by [`Role`].
    pub latency: [Histogram; 2],
    /// Handshakes that were completed, by [`Role`] and [`Why`].
    pub handshakes: [[u64; 4]; 2],
    /// Messages sent, by [`Message`].
    pub sent: [u64; 3],
    /// Messages received, by [`Message`]; also those that were refused.
    pub received: [u64; 3],
    /// Initiations that followed one without an answer.
    pub retries: u64,
    /// Failures, by [`Failure`].
    pub failures: [u64; 10],
    /// Packets that were dropped while they waited for a session.
    pub staged_dropped: u64,
    /// Data packets that reached a session and were refused.
    pub refused: u64,
    /// Bytes received by peers that have been removed.
    pub received_bytes: u64,
    /// Bytes sent to peers that have been removed.
    pub sent_bytes: u64,
}

/// A handshake under way.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Start {
    /// When it began, by `CLOCK_MONOTONIC`.
    pub at: u64,
    /// A [`Why`], with [`UNANSWERED`].
    pub why: u64,
}

/// Set in [`Start::why`] when it was counted that no answer came in time.
pub const UNANSWERED: u64 = 1 << 32;

/// An address of the underlay.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Address {
    /// `AF_INET` (2), `AF_INET6` (10), or 0.
    pub family: u32,
    /// The UDP port.
    pub port: u32,
    /// The address in the order of the wire, at the front.
    pub bytes: [u64; 2],
}

/// A message that a thread of the kernel looks at.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Consuming {
    /// The `struct wg_device`.
    pub device: u64,
    /// Its type on the wire.
    pub message: u32,
    /// Whether a cookie was asked for.
    pub under_load: u32,
    /// Where it came from.
    pub from: Address,
    /// Whether a peer was looked for.
    pub looked: u64,
    /// The `struct wg_peer` that was found.
    pub found: u64,
    /// The public key that was looked for.
    pub key: [u64; 4],
}

/// A peer as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Its interface and public key.
    pub key: PeerKey,
    /// When it was looked at, by `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The inode number of the interface's network namespace.
    pub namespace: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// When its last handshake was completed, in nanoseconds since 1970; 0:
    /// never.
    pub last_handshake: u64,
}

/// Batches of received packets on one CPU.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Poll {
    /// The `struct wg_peer`; 0: none is under way.
    pub peer: u64,
    /// Packets that its interface had received on this CPU.
    pub packets: u64,
}

/// Events of one kind in one second.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Budget {
    /// The second, by `CLOCK_MONOTONIC`.
    pub second: u64,
    /// Events in it.
    pub events: u64,
}

/// Events of one kind that are told in a second; the rest are counted.
pub const EVENTS_PER_SECOND: u64 = 50;

/// A handshake was completed, or a part of one failed.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HandshakeEvent {
    /// [`HANDSHAKE`] or [`FAILURE`].
    pub kind: u32,
    /// A [`Role`] or a [`Failure`].
    pub what: u32,
    /// A [`Why`], of a handshake.
    pub why: u32,
    /// Attempts without an answer.
    pub attempts: u32,
    /// When, by `CLOCK_MONOTONIC`.
    pub at: u64,
    /// How long a handshake took, in nanoseconds.
    pub took: u64,
    /// Interface and peer.
    pub key: PeerKey,
    /// The peer's address, or where the message came from.
    pub address: Address,
}

/// [`HandshakeEvent::kind`]: completed.
pub const HANDSHAKE: u32 = 1;
/// [`HandshakeEvent::kind`]: failed.
pub const FAILURE: u32 = 2;
