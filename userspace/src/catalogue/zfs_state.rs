//! OpenZFS signals that are read; userspace/src/collect/zfs/.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Numbers, Signal, zfs::ROW};
use crate::collect::zfs::txgs::PHASES;

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "zfs.txg_time",
        metric: "kldtrace_zfs_txg_time_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of transaction groups in each phase: open, quiesce, wait (for the sync before) and sync.",
        labels: &["pool", "phase"],
        source: "module/zfs/spa_stats.c: spa_txg_history; /proc/spl/kstat/zfs/POOL/txgs",
        numbers: Numbers::ZfsState(|read, emit| {
            for (pool, groups) in read.zfs.txgs.pools() {
                for ((_, phase), histogram) in PHASES.iter().zip(groups.phases.iter()) {
                    emit.histogram(&[pool, phase], histogram);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.arc_accesses",
        metric: "kldtrace_zfs_arc_accesses",
        help: "Look-ups in the ARC by what came of them; iohit: somebody else was already reading the block (since 2.2).",
        labels: &["result", "access", "content"],
        source: "module/zfs/arc.c: arc_access; /proc/spl/kstat/zfs/arcstats",
        numbers: Numbers::ZfsState(|read, emit| {
            for access in ["demand", "prefetch"] {
                for content in ["data", "metadata"] {
                    for (column, result) in
                        [("hits", "hit"), ("iohits", "iohit"), ("misses", "miss")]
                    {
                        let column = format!("{access}_{content}_{column}");
                        if let Some(number) = read.state.arc.number(&column) {
                            emit.integer(&[result, access, content], number);
                        }
                    }
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.l2arc_accesses",
        metric: "kldtrace_zfs_l2arc_accesses",
        help: "Look-ups in the L2ARC, after a miss in the ARC, by what came of them.",
        labels: &["result"],
        source: "module/zfs/arc.c; /proc/spl/kstat/zfs/arcstats: l2_hits, l2_misses",
        numbers: Numbers::ZfsState(|read, emit| {
            for (column, result) in [("l2_hits", "hit"), ("l2_misses", "miss")] {
                if let Some(number) = read.state.arc.number(column) {
                    emit.integer(&[result], number);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.arc_size",
        metric: "kldtrace_zfs_arc_size_bytes",
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        help: "Size of the ARC: what it has (size), what it aims at (target), and its bounds (min, max).",
        labels: &["what"],
        source: "module/zfs/arc.c; /proc/spl/kstat/zfs/arcstats: size, c, c_min, c_max",
        numbers: Numbers::ZfsState(|read, emit| {
            for (column, what) in [
                ("size", "size"),
                ("c", "target"),
                ("c_min", "min"),
                ("c_max", "max"),
            ] {
                if let Some(number) = read.state.arc.number(column) {
                    emit.integer(&[what], number);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.arc_memory_throttles",
        metric: "kldtrace_zfs_arc_memory_throttles",
        help: "Writes that the ARC held back for want of memory.",
        source: "module/os/linux/zfs/arc_os.c: arc_memory_throttle; arcstats: memory_throttle_count",
        numbers: Numbers::ZfsState(|read, emit| {
            if let Some(number) = read.state.arc.number("memory_throttle_count") {
                emit.integer(&[], number);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.transactions",
        metric: "kldtrace_zfs_transactions",
        help: "Transactions that were assigned to a group, or had to wait, by what became of them.",
        labels: &["result"],
        source: "module/zfs/dmu_tx.c: dmu_tx_stats; /proc/spl/kstat/zfs/dmu_tx",
        numbers: Numbers::ZfsState(|read, emit| {
            for result in [
                "assigned",
                "delay",
                "error",
                "suspended",
                "group",
                "memory_reserve",
                "memory_reclaim",
                "dirty_throttle",
                "dirty_delay",
                "dirty_over_max",
                "dirty_frees_delay",
                "wrlog_delay",
                "quota",
            ] {
                let column = format!("dmu_tx_{result}");
                if let Some(number) = read.state.dmu_tx.number(&column) {
                    emit.integer(&[result], number);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.log_commits",
        metric: "kldtrace_zfs_log_commits",
        help: "Commits of intent logs; of these, those whose caller wrote the log itself (writer), and those that had to wait for a transaction group instead: after an error, for want of room (stall), or while the log was suspended (2.3.2 tells of these, 2.1 does not).",
        labels: &["what"],
        source: "module/zfs/zil.c: zil_stats; /proc/spl/kstat/zfs/zil",
        numbers: Numbers::ZfsState(|read, emit| {
            for (column, what) in [
                ("zil_commit_count", "commit"),
                ("zil_commit_writer_count", "writer"),
                ("zil_commit_error_count", "error"),
                ("zil_commit_stall_count", "stall"),
                ("zil_commit_suspend_count", "suspend"),
            ] {
                if let Some(number) = read.state.zil.number(column) {
                    emit.integer(&[what], number);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.log_bytes",
        metric: "kldtrace_zfs_log_bytes",
        unit: Unit::Bytes,
        help: "Bytes that went into intent logs, by where the log's blocks were: on the pool (main) or on a log device (slog).",
        labels: &["log"],
        source: "module/zfs/zil.c: zil_stats; /proc/spl/kstat/zfs/zil",
        numbers: Numbers::ZfsState(|read, emit| {
            for (column, log) in [
                ("zil_itx_metaslab_normal_bytes", "main"),
                ("zil_itx_metaslab_slog_bytes", "slog"),
            ] {
                if let Some(number) = read.state.zil.number(column) {
                    emit.integer(&[log], number);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.pool_state",
        metric: "kldtrace_zfs_pool_state",
        kind: Kind::Gauge,
        help: "The state of a pool: 1 for the one that it is in.",
        labels: &["pool", "state"],
        source: "module/zfs/spa_misc.c: spa_state_to_name; /proc/spl/kstat/zfs/POOL/state",
        numbers: Numbers::ZfsState(|read, emit| {
            for (pool, state) in &read.state.pools {
                emit.integer(&[pool, state], 1);
            }
        }),
        ..ROW
    },
];
