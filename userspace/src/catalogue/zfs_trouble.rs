//! Signals of trouble that OpenZFS itself reports, and of its syncs;
//! probes/src/zfs/reports.rs, sync.rs.

use kldtrace_exporters::model::{Kind, Unit};

use super::{
    Cost, Hook, Numbers, Signal,
    zfs::{ROW, enter, leave},
};

const REPORTS: &[&[Hook]] = &[
    &[enter("zfs_report_enter", "zfs_ereport_post")],
    &[leave("zfs_report_leave", "zfs_ereport_post")],
    &[enter(
        "zfs_checksum_report_enter",
        "zfs_ereport_start_checksum",
    )],
    &[leave("zfs_report_leave", "zfs_ereport_start_checksum")],
    &[enter(
        "zfs_checksum_report_enter",
        "zfs_ereport_post_checksum",
    )],
    &[leave("zfs_report_leave", "zfs_ereport_post_checksum")],
];

const SYNC: &[&[Hook]] = &[
    &[enter("zfs_sync_enter", "spa_sync")],
    &[leave("zfs_sync_leave", "spa_sync")],
];

const LABELS: &[&str] = &["pool", "vdev"];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "zfs.vdev_checksum_errors",
        metric: "kldtrace_zfs_vdev_checksum_errors",
        help: "Blocks from a vdev whose checksum was wrong; the column CKSUM of zpool status, since the probes are attached.",
        labels: LABELS,
        hooks: REPORTS,
        cost: Cost::Low,
        source: "module/zfs/zio.c: zio_checksum_verify, vs_checksum_errors; module/zfs/zfs_fm.c",
        numbers: Numbers::ZfsReports(|class, count, emit| {
            if class == "checksum" {
                emit.integer(&[], count);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.vdev_slow_requests",
        metric: "kldtrace_zfs_vdev_slow_requests",
        help: "Requests that a vdev's device took longer for than zio_slow_io_ms; the column SLOW of zpool status -s.",
        labels: LABELS,
        hooks: REPORTS,
        cost: Cost::Low,
        source: "module/zfs/zio.c: zio_done, vs_slow_ios; module/zfs/zfs_fm.c",
        numbers: Numbers::ZfsReports(|class, count, emit| {
            if class == "delay" {
                emit.integer(&[], count);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.vdev_hung_requests",
        metric: "kldtrace_zfs_vdev_hung_requests",
        help: "Times that ZFS's deadman found a request to a vdev that did not end in zfs_deadman_ziotime_ms; the same request again at each of its looks.",
        labels: LABELS,
        hooks: REPORTS,
        cost: Cost::Low,
        source: "module/zfs/zio.c: zio_deadman_impl; module/zfs/zfs_fm.c",
        numbers: Numbers::ZfsReports(|class, count, emit| {
            if class == "deadman" {
                emit.integer(&[], count);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.reports",
        metric: "kldtrace_zfs_reports",
        help: "Other trouble that ZFS reports of a vdev or, with its name for the vdev, of a pool; class io is READ and WRITE of zpool status together.",
        labels: &["pool", "vdev", "class"],
        hooks: REPORTS,
        cost: Cost::Low,
        source: "module/zfs/zfs_fm.c: zfs_ereport_post; include/sys/fm/fs/zfs.h",
        numbers: Numbers::ZfsReports(|class, count, emit| {
            if !["checksum", "delay", "deadman"].contains(&class) {
                emit.integer(&[class], count);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.spa_sync_time",
        metric: "kldtrace_zfs_spa_sync_time_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of spa_sync: what of a transaction group's phase of sync went into writing it out.",
        labels: &["pool"],
        hooks: SYNC,
        cost: Cost::Low,
        source: "module/zfs/spa.c: spa_sync; module/zfs/txg.c: txg_sync_thread",
        numbers: Numbers::ZfsSyncs(|histogram, emit| emit.histogram(&[], histogram)),
        ..ROW
    },
];
