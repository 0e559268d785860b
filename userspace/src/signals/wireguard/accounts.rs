//! What is summed for each peer and each interface.

use kldtrace_abi::{histogram::Histogram, wireguard::Peer};

use crate::signals::maps::{Sum, add_all, add_histograms};

/// Account of a peer.
#[derive(Clone, Copy)]
pub struct PeerAccount {
    /// What the probes counted; of peers that live, also the kernel's own
    /// counters of bytes.
    pub counted: Peer,
    /// When the last handshake was completed, in nanoseconds since 1970; 0:
    /// never, or the peer is gone.
    pub last_handshake: u64,
}

impl Sum for Peer {
    const ZERO: Self = Self {
        latency: [Histogram::EMPTY; 2],
        handshakes: [[0; 4]; 2],
        sent: [0; 3],
        received: [0; 3],
        retries: 0,
        failures: [0; 10],
        staged_dropped: 0,
        refused: 0,
        received_bytes: 0,
        sent_bytes: 0,
    };

    fn add(&mut self, other: &Self) {
        add_histograms(&mut self.latency, &other.latency);
        for (to, from) in self.handshakes.iter_mut().zip(&other.handshakes) {
            add_all(to, from);
        }
        add_all(&mut self.sent, &other.sent);
        add_all(&mut self.received, &other.received);
        add_all(&mut self.failures, &other.failures);
        self.retries += other.retries;
        self.staged_dropped += other.staged_dropped;
        self.refused += other.refused;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
    }

    fn is_zero(&self) -> bool {
        // A handshake has messages.
        self.sent == [0; 3]
            && self.received == [0; 3]
            && self.failures == [0; 10]
            && self.staged_dropped + self.refused == 0
            && self.received_bytes + self.sent_bytes == 0
    }
}

impl Sum for PeerAccount {
    const ZERO: Self = Self {
        counted: Peer::ZERO,
        last_handshake: 0,
    };

    fn add(&mut self, other: &Self) {
        self.counted.add(&other.counted);
        self.last_handshake = self.last_handshake.max(other.last_handshake);
    }

    fn is_zero(&self) -> bool {
        self.counted.is_zero() && self.last_handshake == 0
    }
}

/// The kernel's counters of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterfaceAccount {
    /// Packets received.
    pub received: u64,
    /// Packets that were decrypted and refused.
    pub received_errors: u64,
    /// Messages of handshakes beyond a full queue.
    pub received_dropped: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets without a peer or an endpoint.
    pub sent_errors: u64,
    /// Packets that waited for a session and were dropped.
    pub sent_dropped: u64,
}

impl InterfaceAccount {
    /// Whether a counter has gone back: it is another interface of that name.
    pub fn behind(&self, before: &Self) -> bool {
        self.received < before.received
            || self.received_errors < before.received_errors
            || self.received_dropped < before.received_dropped
            || self.sent < before.sent
            || self.sent_errors < before.sent_errors
            || self.sent_dropped < before.sent_dropped
    }
}

impl Sum for InterfaceAccount {
    const ZERO: Self = Self {
        received: 0,
        received_errors: 0,
        received_dropped: 0,
        sent: 0,
        sent_errors: 0,
        sent_dropped: 0,
    };

    fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.received_errors += other.received_errors;
        self.received_dropped += other.received_dropped;
        self.sent += other.sent;
        self.sent_errors += other.sent_errors;
        self.sent_dropped += other.sent_dropped;
    }

    fn is_zero(&self) -> bool {
        *self == Self::ZERO
    }
}
