//! WireGuard signals; probes/src/wireguard/.

use kldtrace_abi::wireguard::{Failure, Message, Role, Why};
use kldtrace_exporters::model::{Kind, Unit};

use super::{Attach, Cost, Hook, Numbers, Signal, Subject};

/// A program at the entry of a function.
const fn entry(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Kprobe(function),
    }
}

/// A program at the return of a function.
const fn exit(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Kretprobe(function),
    }
}

const CREATE_INITIATION: &[Hook] = &[entry(
    "wg_create_initiation",
    "wg_noise_handshake_create_initiation",
)];
const INITIATION_SENT: &[Hook] = &[entry("wg_initiation_sent", "wg_timers_handshake_initiated")];
const RESPONSE_SENT: &[Hook] = &[entry(
    "wg_response_sent",
    "wg_packet_send_handshake_response",
)];
const COMPLETE: &[Hook] = &[entry(
    "wg_handshake_complete",
    "wg_timers_handshake_complete",
)];
const NO_ANSWER: &[Hook] = &[entry("wg_no_answer", "wg_expired_retransmit_handshake")];
const PURGE: &[Hook] = &[entry("wg_purge", "wg_packet_purge_staged_packets")];
const VALIDATE: &[Hook] = &[entry("wg_validate_enter", "wg_cookie_validate_packet")];
const VALIDATED: &[Hook] = &[exit("wg_validate_return", "wg_cookie_validate_packet")];
const LOOKUP: &[Hook] = &[entry("wg_lookup_enter", "wg_pubkey_hashtable_lookup")];
const LOOKED_UP: &[Hook] = &[exit("wg_lookup_return", "wg_pubkey_hashtable_lookup")];
const INITIATION: &[Hook] = &[exit(
    "wg_initiation_return",
    "wg_noise_handshake_consume_initiation",
)];
const RESPONSE: &[Hook] = &[exit(
    "wg_response_return",
    "wg_noise_handshake_consume_response",
)];
const COOKIE_RECEIVED: &[Hook] = &[entry("wg_cookie_received", "wg_cookie_message_consume")];
const COOKIE_SENT: &[Hook] = &[entry("wg_cookie_sent", "wg_cookie_message_create")];
const PEERS: &[Hook] = &[entry("wg_peers", "dev_get_stats")];
const POLL: &[Hook] = &[entry("wg_poll_enter", "wg_packet_rx_poll")];
const POLLED: &[Hook] = &[exit("wg_poll_return", "wg_packet_rx_poll")];

const PEER: &[&str] = &["interface", "plane", "peer"];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "wireguard.handshake_latency",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_handshake_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of handshakes: as initiator from the initiation to the response's session, as responder from the response to the first packet in the session.",
        labels: &["interface", "plane", "peer", "role"],
        hooks: &[CREATE_INITIATION, RESPONSE, RESPONSE_SENT, COMPLETE, PURGE],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "drivers/net/wireguard/noise.c: wg_noise_handshake_create_initiation, wg_noise_handshake_consume_response; timers.c: wg_timers_handshake_complete",
        numbers: Numbers::Wireguard(|account, emit| {
            for role in Role::ALL {
                emit.histogram(&[role.as_str()], &account.counted.latency[role as usize]);
            }
        }),
    },
    Signal {
        name: "wireguard.handshakes",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_handshakes",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Handshakes completed, by why they began: new without a session before, else a rekey: age of the session, expired session, early while it was young.",
        labels: &["interface", "plane", "peer", "role", "reason"],
        hooks: &[CREATE_INITIATION, RESPONSE, RESPONSE_SENT, COMPLETE, PURGE],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "drivers/net/wireguard/noise.c: wg_noise_handshake_begin_session; send.c: keep_key_fresh",
        numbers: Numbers::Wireguard(|account, emit| {
            for role in Role::ALL {
                for why in Why::ALL {
                    let count = account.counted.handshakes[role as usize][why as usize];
                    emit.unless_zero(&[role.as_str(), why.as_str()], count);
                }
            }
        }),
    },
    Signal {
        name: "wireguard.handshake_messages",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_handshake_messages",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Messages of handshakes sent and received; a received one that was refused before its sender was known has an empty peer.",
        labels: &["interface", "plane", "peer", "direction", "message"],
        hooks: &[
            INITIATION_SENT,
            RESPONSE_SENT,
            COOKIE_SENT,
            VALIDATE,
            VALIDATED,
            INITIATION,
            RESPONSE,
            COOKIE_RECEIVED,
        ],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "drivers/net/wireguard/receive.c: wg_receive_handshake_packet; send.c: wg_packet_send_handshake_initiation, wg_packet_send_handshake_response",
        numbers: Numbers::Wireguard(|account, emit| {
            for message in Message::ALL {
                let sent = account.counted.sent[message as usize];
                emit.unless_zero(&["sent", message.as_str()], sent);
                let received = account.counted.received[message as usize];
                emit.unless_zero(&["received", message.as_str()], received);
            }
        }),
    },
    Signal {
        name: "wireguard.handshake_retries",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_handshake_retries",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Initiations that followed one without an answer.",
        labels: PEER,
        hooks: &[CREATE_INITIATION, RESPONSE, COMPLETE, NO_ANSWER, PURGE],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "drivers/net/wireguard/timers.c: wg_expired_retransmit_handshake; send.c: wg_packet_send_queued_handshake_initiation",
        numbers: Numbers::Wireguard(|account, emit| {
            emit.unless_zero(&[], account.counted.retries);
        }),
    },
    Signal {
        name: "wireguard.handshake_failures",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_handshake_failures",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Messages of handshakes that had no answer or were refused, by reason.",
        labels: &["interface", "plane", "peer", "reason"],
        hooks: &[
            NO_ANSWER,
            CREATE_INITIATION,
            COMPLETE,
            PURGE,
            VALIDATE,
            VALIDATED,
            LOOKUP,
            LOOKED_UP,
            INITIATION,
            RESPONSE,
        ],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "drivers/net/wireguard/receive.c: wg_receive_handshake_packet; noise.c: wg_noise_handshake_consume_initiation; timers.c: wg_expired_retransmit_handshake",
        numbers: Numbers::Wireguard(|account, emit| {
            for failure in Failure::ALL {
                let count = account.counted.failures[failure as usize];
                emit.unless_zero(&[failure.as_str()], count);
            }
        }),
    },
    Signal {
        name: "wireguard.abandoned_packets",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_abandoned_packets",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Packets for a peer that waited for a session and were dropped as none came, or as the interface or peer went away.",
        labels: PEER,
        hooks: &[PURGE],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "drivers/net/wireguard/send.c: wg_packet_purge_staged_packets",
        numbers: Numbers::Wireguard(|account, emit| {
            emit.unless_zero(&[], account.counted.staged_dropped);
        }),
    },
    Signal {
        name: "wireguard.refused_packets",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_refused_packets",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Data packets that reached a session of the peer and were refused: not decrypted, seen before, in an expired session, beyond a full queue, or from an inner address that is not the peer's.",
        labels: PEER,
        hooks: &[POLL, POLLED],
        fields: &[],
        switch: None,
        cost: Cost::Medium,
        source: "drivers/net/wireguard/receive.c: wg_packet_rx_poll, update_rx_stats",
        numbers: Numbers::Wireguard(|account, emit| {
            emit.unless_zero(&[], account.counted.refused);
        }),
    },
    Signal {
        name: "wireguard.received_bytes",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_received_bytes",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        help: "Bytes received from a peer, encrypted, as wg show says.",
        labels: PEER,
        hooks: &[PEERS, PURGE],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "drivers/net/wireguard/peer.h: wg_peer.rx_bytes",
        numbers: Numbers::Wireguard(|account, emit| {
            emit.unless_zero(&[], account.counted.received_bytes);
        }),
    },
    Signal {
        name: "wireguard.sent_bytes",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_sent_bytes",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        help: "Bytes sent to a peer, encrypted, as wg show says.",
        labels: PEER,
        hooks: &[PEERS, PURGE],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "drivers/net/wireguard/peer.h: wg_peer.tx_bytes",
        numbers: Numbers::Wireguard(|account, emit| {
            emit.unless_zero(&[], account.counted.sent_bytes);
        }),
    },
    Signal {
        name: "wireguard.last_handshake",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_last_handshake_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "When the last handshake with a peer was completed, in seconds since 1970; its age is time() minus this. A peer without one has none.",
        labels: PEER,
        hooks: &[PEERS],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "drivers/net/wireguard/timers.c: wg_timers_handshake_complete, walltime_last_handshake",
        numbers: Numbers::Wireguard(|account, emit| {
            if account.last_handshake != 0 {
                emit.float(&[], account.last_handshake as f64 / 1e9);
            }
        }),
    },
    Signal {
        name: "wireguard.packets",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_packets",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Packets that an interface sent and received, handshakes and keepalives among those received; the kernel counts none by peer.",
        labels: &["interface", "plane", "direction"],
        hooks: &[PEERS],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "net/core/net-procfs.c: dev_seq_printf_stats; drivers/net/wireguard/receive.c: update_rx_stats",
        numbers: Numbers::WireguardInterface(|interface, emit| {
            emit.integer(&["received"], interface.received);
            emit.integer(&["sent"], interface.sent);
        }),
    },
    Signal {
        name: "wireguard.dropped_packets",
        subject: Subject::Wireguard,
        metric: "kldtrace_wireguard_dropped_packets",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Packets that an interface dropped: no_session while they waited for one, no_peer without a peer or endpoint for them, queue_full handshakes beyond the queue, invalid after decryption.",
        labels: &["interface", "plane", "direction", "reason"],
        hooks: &[PEERS],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "drivers/net/wireguard/device.c: wg_xmit; receive.c: wg_packet_receive, wg_packet_consume_data_done; net/core/net-procfs.c: dev_seq_printf_stats",
        numbers: Numbers::WireguardInterface(|interface, emit| {
            emit.integer(&["sent", "no_session"], interface.sent_dropped);
            emit.integer(&["sent", "no_peer"], interface.sent_errors);
            emit.integer(&["received", "queue_full"], interface.received_dropped);
            emit.integer(&["received", "invalid"], interface.received_errors);
        }),
    },
];
