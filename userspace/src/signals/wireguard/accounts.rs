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

impl Sum for PeerAccount {
    const ZERO: Self = Self {
        counted: Peer {
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
        },
        last_handshake: 0,
    };

    fn add(&mut self, other: &Self) {
        let (to, from) = (&mut self.counted, &other.counted);
        add_histograms(&mut to.latency, &from.latency);
        for (to, from) in to.handshakes.iter_mut().zip(&from.handshakes) {
            add_all(to, from);
        }
        add_all(&mut to.sent, &from.sent);
        add_all(&mut to.received, &from.received);
        add_all(&mut to.failures, &from.failures);
        to.retries += from.retries;
        to.staged_dropped += from.staged_dropped;
        to.refused += from.refused;
        to.received_bytes += from.received_bytes;
        to.sent_bytes += from.sent_bytes;
        self.last_handshake = self.last_handshake.max(other.last_handshake);
    }

    fn is_zero(&self) -> bool {
        let counted = &self.counted;
        // A handshake has messages.
        counted.sent == [0; 3]
            && counted.received == [0; 3]
            && counted.failures == [0; 10]
            && counted.staged_dropped + counted.refused == 0
            && counted.received_bytes + counted.sent_bytes == 0
            && self.last_handshake == 0
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
