//! TCP signals; probes/src/tcp/.

use kldtrace_abi::tcp::{ConnectFailure, Retransmit, STATES};
use kldtrace_exporters::model::{Kind, Unit};

use super::{Attach, Cost, Hook, Numbers, Signal, Subject, tp_btf};

const STATE: &[Hook] = &[tp_btf("inet_sock_set_state")];
const RETRANSMIT: &[Hook] = &[tp_btf("tcp_retransmit_skb")];
const RETRANSMIT_SYNACK: &[Hook] = &[tp_btf("tcp_retransmit_synack")];
const PROBE: &[Hook] = &[tp_btf("tcp_probe")];
const SEND_RESET: &[Hook] = &[tp_btf("tcp_send_reset")];
const RECEIVE_RESET: &[Hook] = &[tp_btf("tcp_receive_reset")];
const ACCEPT: Hook = Hook {
    program: "inet_csk_accept",
    attach: Attach::Fexit("inet_csk_accept"),
};
const ACCEPT4: &[Hook] = &[
    ACCEPT,
    Hook {
        program: "accept_getpeername4",
        attach: Attach::CgroupSockAddr("getpeername4"),
    },
];
const ACCEPT6: &[Hook] = &[
    ACCEPT,
    Hook {
        program: "accept_getpeername6",
        attach: Attach::CgroupSockAddr("getpeername6"),
    },
];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "tcp.connect_latency",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_connect_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of active connects from the first SYN to established.",
        labels: &["unit", "interface", "family"],
        hooks: &[STATE],
        fields: &[],
        switch: Some("SWITCH_TCP_CONNECT"),
        cost: Cost::Low,
        source: "include/trace/events/sock.h: inet_sock_set_state",
        numbers: Numbers::Tcp(|account, emit| emit.histogram(&[], &account.connect)),
    },
    Signal {
        name: "tcp.accept_latency",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_accept_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time that established connections waited in the accept queue for their server.",
        labels: &["unit", "interface", "family"],
        hooks: &[STATE, ACCEPT4, ACCEPT6],
        fields: &["sock.sk_socket"],
        switch: Some("SWITCH_TCP_ACCEPT"),
        cost: Cost::Low,
        source: "net/ipv4/inet_connection_sock.c: inet_csk_accept; net/socket.c: __sys_accept4",
        numbers: Numbers::Tcp(|account, emit| emit.histogram(&[], &account.accept)),
    },
    Signal {
        name: "tcp.srtt",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_srtt_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Smoothed round-trip time of a connection, one observation for each segment received on it.",
        labels: &["unit", "interface", "family"],
        hooks: &[PROBE],
        fields: &[],
        switch: None,
        cost: Cost::Medium,
        source: "include/trace/events/tcp.h: tcp_probe; RFC 6298 SRTT",
        numbers: Numbers::Tcp(|account, emit| emit.histogram(&[], &account.srtt)),
    },
    Signal {
        name: "tcp.connection_lifetime",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_connection_lifetime_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of connections from established to closed.",
        labels: &["unit", "interface", "family"],
        hooks: &[STATE],
        fields: &[],
        switch: Some("SWITCH_TCP_LIFETIME"),
        cost: Cost::Low,
        source: "include/trace/events/sock.h: inet_sock_set_state",
        numbers: Numbers::Tcp(|account, emit| emit.histogram(&[], &account.lifetime)),
    },
    Signal {
        name: "tcp.sent_bytes",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_sent_bytes",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        help: "Bytes of data sent, without retransmissions, counted when a connection closes.",
        labels: &["unit", "interface", "family"],
        hooks: &[STATE],
        fields: &[
            "tcp_sock.bytes_sent",
            "tcp_sock.bytes_retrans",
            "tcp_sock.bytes_received",
            "sock.__sk_common.skc_flags",
        ],
        switch: Some("SWITCH_TCP_BYTES"),
        cost: Cost::Low,
        source: "include/linux/tcp.h: tcp_sock.bytes_sent, bytes_retrans",
        numbers: Numbers::Tcp(|account, emit| emit.integer(&[], account.sent_bytes)),
    },
    Signal {
        name: "tcp.received_bytes",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_received_bytes",
        kind: Kind::Counter,
        unit: Unit::Bytes,
        help: "Bytes of data received in order, counted when a connection closes.",
        labels: &["unit", "interface", "family"],
        hooks: &[STATE],
        fields: &[
            "tcp_sock.bytes_sent",
            "tcp_sock.bytes_retrans",
            "tcp_sock.bytes_received",
            "sock.__sk_common.skc_flags",
        ],
        switch: Some("SWITCH_TCP_BYTES"),
        cost: Cost::Low,
        source: "include/linux/tcp.h: tcp_sock.bytes_received; RFC 4898 tcpEStatsAppHCThruOctetsReceived",
        numbers: Numbers::Tcp(|account, emit| emit.integer(&[], account.received_bytes)),
    },
    Signal {
        name: "tcp.retransmitted_segments",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_retransmitted_segments",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Segments sent again; segments and not calls, as RetransSegs in /proc/net/snmp.",
        labels: &["unit", "interface", "family", "kind"],
        hooks: &[RETRANSMIT, RETRANSMIT_SYNACK],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "net/ipv4/tcp_output.c: __tcp_retransmit_skb, tcp_rtx_synack; RFC 4022 tcpRetransSegs",
        numbers: Numbers::Tcp(|account, emit| {
            for kind in Retransmit::ALL {
                emit.integer(&[kind.as_str()], account.retransmits[kind as usize]);
            }
        }),
    },
    Signal {
        name: "tcp.resets_sent",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_resets_sent",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Resets sent, as OutRsts in /proc/net/snmp; those without a socket have an empty unit.",
        labels: &["unit", "interface", "family"],
        hooks: &[SEND_RESET],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "include/trace/events/tcp.h: tcp_send_reset; RFC 4022 tcpOutRsts",
        numbers: Numbers::Tcp(|account, emit| emit.integer(&[], account.resets_sent)),
    },
    Signal {
        name: "tcp.resets_received",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_resets_received",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Resets received on a connection.",
        labels: &["unit", "interface", "family"],
        hooks: &[RECEIVE_RESET],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "include/trace/events/tcp.h: tcp_receive_reset",
        numbers: Numbers::Tcp(|account, emit| emit.integer(&[], account.resets_received)),
    },
    Signal {
        name: "tcp.connect_failures",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_connect_failures",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Active connects that failed, by reason.",
        labels: &["unit", "interface", "family", "reason"],
        hooks: &[STATE],
        fields: &[],
        switch: Some("SWITCH_TCP_FAILURES"),
        cost: Cost::Low,
        source: "include/trace/events/sock.h: inet_sock_set_state; sock.sk_err",
        numbers: Numbers::Tcp(|account, emit| {
            for reason in ConnectFailure::ALL {
                emit.integer(&[reason.as_str()], account.failures[reason as usize]);
            }
        }),
    },
    Signal {
        name: "tcp.state_changes",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_state_changes",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Changes of a TCP socket into a state.",
        labels: &["unit", "interface", "family", "state"],
        hooks: &[STATE],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "include/net/tcp_states.h",
        numbers: Numbers::Tcp(|account, emit| {
            for (state, changes) in STATES.iter().zip(account.states) {
                emit.unless_zero(&[state], changes);
            }
        }),
    },
    Signal {
        name: "tcp.listen_overflows",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_listen_overflows",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Connections refused because an accept queue was full, in all network namespaces, as ListenOverflows in /proc/net/netstat.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "net/ipv4/proc.c: LINUX_MIB_LISTENOVERFLOWS",
        numbers: Numbers::Facts(|facts, emit| {
            if let Some(listened) = &facts.listened {
                emit.integer(&[], listened.overflows);
            }
        }),
    },
    Signal {
        name: "tcp.listen_drops",
        subject: Subject::Tcp,
        metric: "kldtrace_tcp_listen_drops",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Connection requests that a listening socket dropped for any reason, by the unit that listens.",
        labels: &["unit", "interface", "family"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "net/ipv4/inet_diag.c: SK_MEMINFO_DROPS; net/ipv4/tcp_ipv4.c: tcp_listendrop",
        numbers: Numbers::Facts(|facts, emit| {
            let drops = facts.listened.iter().flat_map(|listened| &listened.drops);
            for (socket, drops) in drops {
                emit.integer(&[&socket.unit, &socket.interface, socket.family], *drops);
            }
        }),
    },
];
