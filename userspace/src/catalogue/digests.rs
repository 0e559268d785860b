//! What the daemon itself makes of its numbers, for those who ask often and of many nodes.
//!
//! A rate of a native histogram costs Prometheus twenty times what a rate of a counter does, and a
//! quantile of 500 nodes' histograms more than it has. Each node knows its own for nothing. It also
//! adds up counters over labels that nobody asks for, before each of them is a series elsewhere.

use std::time::Duration;

use kldtrace_exporters::model::{Kind, Unit};

use super::{Cost, Signal};

/// Families that are made of one signal: a histogram, a counter, or times since 1970. They come and
/// go with it.
#[derive(Debug)]
pub struct Digest {
    /// The signal's name.
    pub of: &'static str,
    /// The labels of it that are kept; the series that differ in others only are added up.
    pub labels: &'static [&'static str],
    /// Which of its series count.
    pub only: Only,
    /// What is made of them; all that looks back looks back as far.
    pub makes: &'static [Made],
}

/// Which series of a signal count.
#[derive(Clone, Copy, Debug)]
pub enum Only {
    /// All.
    All,
    /// Those whose label has one of these values.
    Is(&'static str, &'static [&'static str]),
    /// Those whose label has another than these.
    IsNot(&'static str, &'static [&'static str]),
}

/// One family.
#[derive(Debug)]
pub struct Made {
    /// Exported family, without `_total`.
    pub metric: &'static str,
    /// One sentence for people, also the `# HELP` line.
    pub help: &'static str,
    /// How it comes out of a histogram.
    pub what: What,
}

/// How a number comes out of a histogram; a counter is one of which only the count is known, or only
/// the sum if it counts seconds.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The number of durations, or the counter.
    Count,
    /// How much time they took.
    Time,
    /// The durations that were longer than an objective; the label `over` has it, in seconds.
    Misses(Objective),
    /// The count of a window, in the signal's unit; nothing where it is 0. What came before the first scrape
    /// is in it, which no rate of a counter sees.
    Recent(Window),
    /// The same for each second of the window.
    PerSecond(Window),
    /// How much time they took in each second of the window: how many went on at once, on average.
    AtOnce(Window),
    /// The mean of a window's durations; nothing where there were none.
    Mean(Window),
    /// A quantile of a window's durations; nothing where there were none. 990: 99 of 100 are at
    /// most this long.
    Quantile(u16, Window),
    /// Not of a histogram: times that are longer ago than this, as they are; nothing where they
    /// are not.
    LongerAgo(Duration),
}

/// What should take no longer: a key of `[objectives]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objective {
    /// `zfs_operation`.
    ZfsOperation,
    /// `tcp_connect`.
    TcpConnect,
}

/// How far back something looks, and at most a fifth further; to when somebody asked last, if that
/// is longer ago; and no further than the daemon began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// `[objectives] look_back`.
    Usual,
    /// `[objectives] trouble`.
    Trouble,
    /// So many minutes, as what is looked at has a time of its own.
    Minutes(u64),
}

/// The label of [`What::Misses`].
pub const OVER: &str = "over";

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

impl Digest {
    /// The signal that it is made of.
    ///
    /// # Panics
    /// Never: the tests look each of them up.
    pub fn signal(&self) -> &'static Signal {
        super::find(self.of).unwrap_or_else(|| unreachable!("no signal {}", self.of))
    }

    /// Whether the kernel counts it by itself, and did before there was a daemon.
    pub fn was_counted_before(&self) -> bool {
        let signal = self.signal();
        signal.cost == Cost::Read && !signal.hooks.is_empty()
    }

    /// Whether a value of a label is of a series that counts.
    pub fn counts(&self, label: &str, value: &str) -> bool {
        match self.only {
            Only::All => true,
            Only::Is(name, wanted) => label != name || wanted.contains(&value),
            Only::IsNot(name, unwanted) => label != name || !unwanted.contains(&value),
        }
    }

    /// The labels of one of its families, in order of output.
    pub fn labels_of(&self, made: &Made) -> Vec<&'static str> {
        let over = matches!(made.what, What::Misses(_)).then_some(OVER);
        self.labels.iter().copied().chain(over).collect()
    }

    /// The base unit of one of its families.
    pub fn unit_of(&self, made: &Made) -> Unit {
        match made.what {
            What::Time | What::Mean(_) | What::Quantile(..) | What::LongerAgo(_) => Unit::Seconds,
            What::Recent(_) if self.signal().kind == Kind::Counter => self.signal().unit,
            _ => Unit::None,
        }
    }
}

impl What {
    /// How far back it looks; `None`: it does not.
    pub fn window(self) -> Option<Window> {
        match self {
            Self::Recent(window)
            | Self::PerSecond(window)
            | Self::AtOnce(window)
            | Self::Mean(window)
            | Self::Quantile(_, window) => Some(window),
            Self::Count | Self::Time | Self::Misses(_) | Self::LongerAgo(_) => None,
        }
    }
}

impl Made {
    /// Counter or gauge.
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Count | What::Time | What::Misses(_) => Kind::Counter,
            _ => Kind::Gauge,
        }
    }

    /// The name of the exported family: counters end in `_total`.
    pub fn exported_name(&self) -> String {
        super::exported_name(self.metric, self.kind())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalogue::{Subject, signals};

    #[test]
    fn digests_are_of_signals_and_their_labels() {
        for digest in DIGESTS {
            let signal = digest.signal();
            for made in digest.makes {
                let fits = match (signal.kind, signal.unit) {
                    (Kind::Histogram, _) => !matches!(made.what, What::LongerAgo(_)),
                    (Kind::Counter, Unit::Seconds) => matches!(made.what, What::Time),
                    (Kind::Counter, _) => {
                        matches!(
                            made.what,
                            What::Count | What::Recent(_) | What::PerSecond(_)
                        )
                    }
                    // It is one series for each of the signal's.
                    (Kind::Gauge, _) => {
                        matches!(made.what, What::LongerAgo(_)) && digest.labels == signal.labels
                    }
                };
                assert!(fits, "{}", made.metric);
            }
            let label = match digest.only {
                Only::All => None,
                Only::Is(label, _) | Only::IsNot(label, _) => Some(label),
            };
            for label in digest.labels.iter().copied().chain(label) {
                assert!(signal.labels.contains(&label), "{}: {label}", digest.of);
            }
        }
    }

    #[test]
    fn a_digest_has_one_window() {
        for digest in DIGESTS {
            let mut windows = digest.makes.iter().filter_map(|made| made.what.window());
            let first = windows.next();
            assert!(windows.all(|other| Some(other) == first), "{}", digest.of);
        }
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut metrics: HashSet<_> = signals().map(|signal| signal.metric).collect();
        for digest in DIGESTS {
            let prefix = match digest.signal().subject {
                Subject::Own => "kldtrace_".to_owned(),
                subject => format!("kldtrace_{}_", subject.as_str()),
            };
            for made in digest.makes {
                assert!(metrics.insert(made.metric), "{} twice", made.metric);
                assert!(made.metric.starts_with(&prefix), "{}", made.metric);
                assert!(!made.metric.ends_with("_total"), "{}", made.metric);
                if let Some(unit) = digest.unit_of(made).as_str() {
                    assert!(made.metric.ends_with(unit), "{}", made.metric);
                }
                assert!(made.help.ends_with('.'), "{}", made.metric);
            }
        }
    }
}
