//! What is made of which signal.

use std::time::Duration;

use super::{Digest, Made, Objective, Only, What, Window};

/// How long a session lives after its handshake: drivers/net/wireguard/messages.h.
const REJECT_AFTER_TIME: Duration = Duration::from_mins(3);

const P99: What = What::Quantile(990, Window::Usual);

/// All of them, in the order of the signals that they are made of.
pub const DIGESTS: &[Digest] = &[
    Digest {
        of: "sched.runqueue_latency",
        labels: &[],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_sched_runqueue_p99_seconds",
            help: "Of [objectives] look_back, 99 of 100 waits of a task for a CPU were at most this long.",
            what: P99,
        }],
    },
    Digest {
        of: "sched.offcpu_time",
        labels: &["unit"],
        only: Only::Is("reason", &["uninterruptible"]),
        makes: &[Made {
            metric: "kldtrace_sched_uninterruptible_tasks",
            help: "Tasks that waited where no signal interrupts them, on average of [objectives] look_back.",
            what: What::AtOnce(Window::Usual),
        }],
    },
    Digest {
        of: "tcp.connect_latency",
        labels: &["interface"],
        only: Only::All,
        makes: &[
            Made {
                metric: "kldtrace_tcp_connects",
                help: "Active connects that were answered.",
                what: What::Count,
            },
            Made {
                metric: "kldtrace_tcp_connects_over_objective",
                help: "Active connects that took longer than [objectives] tcp_connect.",
                what: What::Misses(Objective::TcpConnect),
            },
            Made {
                metric: "kldtrace_tcp_connect_p99_seconds",
                help: "Of [objectives] look_back, 99 of 100 active connects took at most this long.",
                what: P99,
            },
        ],
    },
    Digest {
        of: "tcp.srtt",
        labels: &["interface"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_tcp_received_segments",
            help: "Segments received that told a round-trip time.",
            what: What::Count,
        }],
    },
    Digest {
        of: "tcp.retransmitted_segments",
        labels: &["interface"],
        only: Only::Is("kind", &["data"]),
        makes: &[Made {
            metric: "kldtrace_tcp_retransmitted_data_segments",
            help: "Segments with data that were sent again.",
            what: What::Count,
        }],
    },
    Digest {
        of: "tcp.resets_sent",
        labels: &["unit"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_tcp_unit_resets_sent_per_second",
            help: "Resets sent in each second of [objectives] look_back, on all interfaces.",
            what: What::PerSecond(Window::Usual),
        }],
    },
    Digest {
        of: "tcp.resets_received",
        labels: &["unit"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_tcp_unit_resets_received_per_second",
            help: "Resets received in each second of [objectives] look_back, on all interfaces.",
            what: What::PerSecond(Window::Usual),
        }],
    },
    Digest {
        of: "tcp.connect_failures",
        labels: &["unit", "reason"],
        only: Only::Is("reason", &["refused", "timeout", "unreachable"]),
        makes: &[Made {
            metric: "kldtrace_tcp_unit_connect_failures_per_second",
            help: "Active connects that the other side or the network failed, in each second of [objectives] look_back, on all interfaces.",
            what: What::PerSecond(Window::Usual),
        }],
    },
    Digest {
        of: "block.device_latency",
        labels: &["device", "op"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_block_device_p99_seconds",
            help: "Of [objectives] look_back, 99 of 100 block requests were in the device for at most this long.",
            what: P99,
        }],
    },
    Digest {
        of: "block.requests",
        labels: &["device", "op"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_block_requests_per_second",
            help: "Block requests completed in each second of [objectives] look_back.",
            what: What::PerSecond(Window::Usual),
        }],
    },
    Digest {
        of: "block.errors",
        labels: &["device", "op"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_block_errors_recent",
            help: "Block requests, or parts of them, that ended in an error within [objectives] trouble.",
            what: What::Recent(Window::Trouble),
        }],
    },
    Digest {
        of: "zfs.op_latency",
        labels: &["pool"],
        only: Only::All,
        makes: &[
            Made {
                metric: "kldtrace_zfs_operations",
                help: "File operations on the datasets of a pool.",
                what: What::Count,
            },
            Made {
                metric: "kldtrace_zfs_operations_over_objective",
                help: "File operations that took longer than [objectives] zfs_operation.",
                what: What::Misses(Objective::ZfsOperation),
            },
        ],
    },
    Digest {
        of: "zfs.stage_latency",
        labels: &["pool", "dataset"],
        only: Only::Is("stage", &["zil_commit"]),
        makes: &[
            Made {
                metric: "kldtrace_zfs_zil_waits_per_second",
                help: "File operations that waited for a commit of the intent log, in each second of [objectives] look_back.",
                what: What::PerSecond(Window::Usual),
            },
            Made {
                metric: "kldtrace_zfs_zil_wait_p99_seconds",
                help: "Of [objectives] look_back, 99 of 100 file operations that waited for the intent log did for at most this long.",
                what: P99,
            },
        ],
    },
    Digest {
        of: "zfs.txg_time",
        labels: &["pool"],
        only: Only::Is("phase", &["sync"]),
        makes: &[Made {
            metric: "kldtrace_zfs_txg_sync_p90_seconds",
            help: "Of [objectives] look_back, 9 of 10 transaction groups took at most this long to sync.",
            what: What::Quantile(900, Window::Usual),
        }],
    },
    Digest {
        of: "zfs.vdev_device_latency",
        labels: &["pool", "vdev", "type"],
        only: Only::IsNot("priority", &["sync_write"]),
        makes: &[Made {
            metric: "kldtrace_zfs_vdev_device_mean_seconds",
            help: "Of [objectives] look_back, the mean time that requests were in the device, without those of the intent log.",
            what: What::Mean(Window::Usual),
        }],
    },
    Digest {
        of: "zfs.vdev_checksum_errors",
        labels: &["pool", "vdev"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_zfs_vdev_checksum_errors_recent",
            help: "Blocks from a vdev whose checksum was wrong within [objectives] trouble.",
            what: What::Recent(Window::Trouble),
        }],
    },
    Digest {
        of: "zfs.vdev_slow_requests",
        labels: &["pool", "vdev"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_zfs_vdev_slow_requests_recent",
            help: "Requests that a device took longer for than zio_slow_io_ms within [objectives] trouble.",
            what: What::Recent(Window::Trouble),
        }],
    },
    Digest {
        of: "zfs.vdev_hung_requests",
        labels: &["pool", "vdev"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_zfs_vdev_hung_requests_recent",
            help: "Times that ZFS's deadman found a request that did not end within [objectives] trouble.",
            what: What::Recent(Window::Trouble),
        }],
    },
    Digest {
        of: "zfs.reports",
        labels: &["pool", "vdev", "class"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_zfs_reports_recent",
            help: "Other trouble that ZFS reported within [objectives] trouble.",
            what: What::Recent(Window::Trouble),
        }],
    },
    Digest {
        of: "wireguard.handshake_latency",
        labels: &["interface", "plane", "peer"],
        only: Only::Is("role", &["initiator"]),
        makes: &[Made {
            metric: "kldtrace_wireguard_handshake_p90_seconds",
            help: "Of the last 15 minutes, 9 of 10 handshakes that this node began took at most this long.",
            what: What::Quantile(900, Window::Minutes(15)),
        }],
    },
    Digest {
        of: "wireguard.handshakes",
        labels: &["interface", "plane", "peer"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_wireguard_peer_handshakes_3m",
            help: "Handshakes completed with a peer in the last 3 minutes, whoever began them.",
            what: What::Recent(Window::Minutes(3)),
        }],
    },
    Digest {
        of: "wireguard.handshake_failures",
        labels: &["interface", "plane", "peer"],
        only: Only::Is("reason", &["no_answer", "gave_up", "replay"]),
        makes: &[Made {
            metric: "kldtrace_wireguard_peer_handshake_failures_2m",
            help: "Handshakes with a peer that it did not answer in the last 2 minutes, or answered with what came before.",
            what: What::Recent(Window::Minutes(2)),
        }],
    },
    Digest {
        of: "wireguard.handshake_failures",
        labels: &["interface", "plane", "reason"],
        only: Only::IsNot("reason", &["no_answer", "gave_up"]),
        makes: &[Made {
            metric: "kldtrace_wireguard_refused_handshakes_per_second",
            help: "Messages of handshakes that were refused, in each second of [objectives] look_back, of all peers.",
            what: What::PerSecond(Window::Usual),
        }],
    },
    Digest {
        of: "wireguard.last_handshake",
        labels: &["interface", "plane", "peer"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_wireguard_expired_session_timestamp_seconds",
            help: "When the last handshake with a peer was completed, in seconds since 1970, where that was so long ago that the session has expired: 3 minutes.",
            what: What::LongerAgo(REJECT_AFTER_TIME),
        }],
    },
    Digest {
        of: "wireguard.sent_bytes",
        labels: &["interface", "plane", "peer"],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_wireguard_sent_5m_bytes",
            help: "What was sent to a peer in the last 5 minutes.",
            what: What::Recent(Window::Minutes(5)),
        }],
    },
    Digest {
        of: "self.probe_run_time",
        labels: &[],
        only: Only::All,
        makes: &[Made {
            metric: "kldtrace_all_probes_run_seconds",
            help: "Time that all programs ran while the kernel kept statistics.",
            what: What::Time,
        }],
    },
    Digest {
        of: "self.losses",
        labels: &["reason"],
        // The accept probe of some kernels does not see all; and beyond 50 a second events are
        // only counted, and the counters have all.
        only: Only::IsNot(
            "reason",
            &["tcp_accept", "zfs_event", "wireguard_event", "plane_event"],
        ),
        makes: &[Made {
            metric: "kldtrace_losses_per_second",
            help: "What could not be measured or attributed in each second of [objectives] look_back, without what is no trouble.",
            what: What::PerSecond(Window::Usual),
        }],
    },
];
