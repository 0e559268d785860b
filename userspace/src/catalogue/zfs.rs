//! OpenZFS signals that are traced; probes/src/zfs/.

use kldtrace_abi::zfs::Op;
use kldtrace_exporters::model::{Kind, Unit};

use super::{Attach, Cost, Hook, Numbers, READ, Signal, Subject};

/// A program at the entry of a function.
pub(super) const fn enter(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Kprobe(function),
    }
}

/// A program at the return of a function.
pub(super) const fn leave(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Kretprobe(function),
    }
}

/// A program at the entry of a function, by trampoline.
const fn entry(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Fentry(function),
    }
}

/// A program at the return of a function, by trampoline.
const fn exit(program: &'static str, function: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::Fexit(function),
    }
}

/// Functions that every release from 2.1 on has. A read, which may take no longer
/// than a microsecond, has trampolines for as long as something is mounted. The
/// others do without: each makes letting go of the module longer.
const OPERATIONS: &[&[Hook]] = &[
    &[
        entry("zpl_read_entry", "zpl_iter_read"),
        enter("zpl_read_enter", "zpl_iter_read"),
    ],
    &[
        exit("zpl_read_exit", "zpl_iter_read"),
        leave("zpl_read_leave", "zpl_iter_read"),
    ],
    &[enter("zpl_write_enter", "zpl_iter_write")],
    &[leave("zpl_write_leave", "zpl_iter_write")],
    &[enter("zpl_fsync_enter", "zpl_fsync")],
    &[leave("zpl_fsync_leave", "zpl_fsync")],
    &[enter("zpl_open_enter", "zpl_open")],
    &[leave("zpl_open_leave", "zpl_open")],
    &[enter("zpl_readdir_enter", "zpl_iterate")],
    &[leave("zpl_readdir_leave", "zpl_iterate")],
];

/// Faults in mapped files; not every release has them under these names.
const MMAP: &[&[Hook]] = &[
    &[enter("zpl_readahead_enter", "zpl_readahead")],
    &[leave("zpl_readahead_leave", "zpl_readahead")],
    // Named for pages before 5.19.
    &[
        enter("zpl_read_folio_enter", "zpl_read_folio"),
        enter("zpl_readpage_enter", "zpl_readpage"),
    ],
    &[
        leave("zpl_read_folio_leave", "zpl_read_folio"),
        leave("zpl_read_folio_leave", "zpl_readpage"),
    ],
];

const STAGES: &[&[Hook]] = &[
    OPERATIONS[0],
    OPERATIONS[1],
    OPERATIONS[2],
    OPERATIONS[3],
    OPERATIONS[4],
    OPERATIONS[5],
    OPERATIONS[6],
    OPERATIONS[7],
    OPERATIONS[8],
    OPERATIONS[9],
    // zio_wait itself is called by every read, also one that the ARC serves.
    &[
        enter("zio_wait_enter", "__cv_timedwait_io"),
        enter("zio_wait_enter", "zio_wait"),
    ],
    &[
        leave("zio_wait_leave", "__cv_timedwait_io"),
        leave("zio_wait_leave", "zio_wait"),
    ],
    // Since 2.4 fsync goes through zil_commit_flags; zil_commit calls it.
    &[
        enter("zil_commit_enter", "zil_commit_flags"),
        enter("zil_commit_enter", "zil_commit"),
    ],
    &[
        leave("zil_commit_leave", "zil_commit_flags"),
        leave("zil_commit_leave", "zil_commit"),
    ],
    &[enter("dmu_tx_wait_enter", "dmu_tx_wait")],
    &[leave("dmu_tx_wait_leave", "dmu_tx_wait")],
    &[
        enter("txg_wait_enter", "txg_wait_synced_flags"),
        enter("txg_wait_enter", "txg_wait_synced"),
    ],
    &[
        leave("txg_wait_leave", "txg_wait_synced_flags"),
        leave("txg_wait_leave", "txg_wait_synced"),
    ],
    &[enter("txg_wait_enter", "txg_wait_open")],
    &[leave("txg_wait_leave", "txg_wait_open")],
];

/// What requests to leaf vdevs come by, and no others.
const VDEV: &[&[Hook]] = &[
    &[enter("zfs_vdev_done", "vdev_disk_io_done")],
    &[enter("zfs_vdev_done", "vdev_file_io_done")],
];

const OP_LABELS: &[&str] = &["pool", "dataset", "op", "sync"];
const VDEV_LABELS: &[&str] = &["pool", "vdev", "type", "priority"];
const LOG_LABELS: &[&str] = &["pool", "dataset", "vdev", "log"];

/// Of a target of many signals, what each is best told apart by.
pub(super) fn usual_groups(signal: &str) -> &'static [&'static str] {
    match signal {
        "zfs.op_latency" | "zfs.zvol_latency" => &["dataset", "op"],
        "zfs.mmap_read_latency" => &["dataset"],
        "zfs.stage_latency" => &["op", "stage"],
        "zfs.vdev_queue_latency" | "zfs.vdev_device_latency" => &["vdev", "type"],
        "zfs.log_queue_latency" | "zfs.log_device_latency" => &["dataset", "vdev", "log"],
        "zfs.taskq_wait" => &["taskq"],
        "zfs.spa_sync_time" => &["pool"],
        "zfs.txg_time" => &["pool", "phase"],
        _ => &[],
    }
}

/// What all rows have in common until they say otherwise.
pub(super) const ROW: Signal = Signal {
    subject: Subject::Zfs,
    ..READ
};

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "zfs.op_latency",
        metric: "kldtrace_zfs_op_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of file operations on a dataset, as the application that called them feels it.",
        labels: OP_LABELS,
        hooks: OPERATIONS,
        cost: Cost::Medium,
        source: "module/os/linux/zfs/zpl_file.c: zpl_iter_read and others",
        numbers: Numbers::ZfsOps(|op, account, emit| {
            if op != Op::MmapRead {
                emit.histogram(&[], &account.latency);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.mmap_read_latency",
        metric: "kldtrace_zfs_mmap_read_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of page faults in mapped files of a dataset: reading ahead, or one page.",
        labels: OP_LABELS,
        hooks: MMAP,
        cost: Cost::Medium,
        source: "module/os/linux/zfs/zpl_file.c: zpl_readahead, zpl_read_folio",
        numbers: Numbers::ZfsOps(|op, account, emit| {
            if op == Op::MmapRead {
                emit.histogram(&[], &account.latency);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.stage_latency",
        metric: "kldtrace_zfs_stage_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of file operations in each stage; those that never left the CPU are in none. The stages of an operation add up to its time.",
        labels: &["pool", "dataset", "op", "stage"],
        hooks: STAGES,
        switch: Some("SWITCH_ZFS_STAGES"),
        cost: Cost::Medium,
        source: "probes/src/zfs/frames.rs; module/zfs: zio_wait, zil_commit, dmu_tx_wait, txg_wait_synced, txg_wait_open",
        numbers: Numbers::ZfsStages(|histogram, emit| emit.histogram(&[], histogram)),
        ..ROW
    },
    Signal {
        name: "zfs.op_bytes",
        metric: "kldtrace_zfs_op_bytes",
        unit: Unit::Bytes,
        help: "Bytes that reads and writes of a dataset moved.",
        labels: OP_LABELS,
        hooks: OPERATIONS,
        cost: Cost::Medium,
        source: "module/os/linux/zfs/zpl_file.c: what zpl_iter_read and zpl_iter_write return",
        numbers: Numbers::ZfsOps(|op, account, emit| {
            if op != Op::MmapRead {
                emit.unless_zero(&[], account.bytes);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.op_errors",
        metric: "kldtrace_zfs_op_errors",
        help: "File operations on a dataset that returned an error.",
        labels: OP_LABELS,
        hooks: OPERATIONS,
        cost: Cost::Medium,
        source: "module/os/linux/zfs/zpl_file.c",
        numbers: Numbers::ZfsOps(|op, account, emit| {
            if op != Op::MmapRead {
                emit.integer(&[], account.errors);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.ops_from_memory",
        metric: "kldtrace_zfs_ops_from_memory",
        help: "File operations on a dataset that never left the CPU: served from memory without a wait.",
        labels: OP_LABELS,
        hooks: OPERATIONS,
        cost: Cost::Medium,
        source: "probes/src/zfs/frames.rs",
        numbers: Numbers::ZfsOps(|op, account, emit| {
            if op != Op::MmapRead {
                emit.integer(&[], account.from_memory);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.slow_operations",
        metric: "kldtrace_zfs_slow_operations",
        help: "File operations on a dataset that took longer than [zfs] slow_operation; each is an event too.",
        labels: &["pool", "dataset", "op"],
        hooks: STAGES,
        cost: Cost::Low,
        source: "probes/src/zfs/ops.rs",
        numbers: Numbers::ZfsState(|read, emit| {
            for ((name, op), count) in &read.slow {
                emit.integer(&[&name.pool, &name.dataset, op], *count);
            }
        }),
        ..ROW
    },
    Signal {
        name: "zfs.vdev_queue_latency",
        metric: "kldtrace_zfs_vdev_queue_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of requests in ZFS's queue of a vdev, until they were issued to the device.",
        labels: VDEV_LABELS,
        hooks: VDEV,
        cost: Cost::Medium,
        source: "module/zfs/vdev.c: vdev_stat_update, vsx_queue_histo",
        numbers: Numbers::ZfsVdevs(|account, emit| emit.histogram(&[], &account.queue)),
        ..ROW
    },
    Signal {
        name: "zfs.vdev_device_latency",
        metric: "kldtrace_zfs_vdev_device_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of requests in a vdev's device, from issue to completion.",
        labels: VDEV_LABELS,
        hooks: VDEV,
        cost: Cost::Medium,
        source: "module/zfs/vdev.c: vdev_stat_update, vsx_disk_histo",
        numbers: Numbers::ZfsVdevs(|account, emit| emit.histogram(&[], &account.device)),
        ..ROW
    },
    Signal {
        name: "zfs.vdev_bytes",
        metric: "kldtrace_zfs_vdev_bytes",
        unit: Unit::Bytes,
        help: "Bytes of requests to a vdev that succeeded.",
        labels: VDEV_LABELS,
        hooks: VDEV,
        cost: Cost::Medium,
        source: "module/zfs/vdev.c: vdev_stat_update, vs_bytes",
        numbers: Numbers::ZfsVdevs(|account, emit| emit.integer(&[], account.bytes)),
        ..ROW
    },
    Signal {
        name: "zfs.vdev_errors",
        metric: "kldtrace_zfs_vdev_errors",
        help: "Requests to a vdev that failed, retries too. One whose data had a wrong checksum did not fail.",
        labels: VDEV_LABELS,
        hooks: VDEV,
        cost: Cost::Medium,
        source: "module/zfs/vdev.c: vdev_stat_update, io_error",
        numbers: Numbers::ZfsVdevs(|account, emit| emit.integer(&[], account.errors)),
        ..ROW
    },
    Signal {
        name: "zfs.log_queue_latency",
        metric: "kldtrace_zfs_log_queue_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of a dataset's intent-log writes in ZFS's queue of the vdev that they went to.",
        labels: LOG_LABELS,
        hooks: VDEV,
        switch: Some("SWITCH_ZFS_LOG_WRITES"),
        cost: Cost::Medium,
        source: "module/zfs/zil.c: ZB_ZIL_LEVEL; module/zfs/vdev.c: vdev_stat_update",
        numbers: Numbers::ZfsLogs(|account, emit| emit.histogram(&[], &account.queue)),
        ..ROW
    },
    Signal {
        name: "zfs.log_device_latency",
        metric: "kldtrace_zfs_log_device_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of a dataset's intent-log writes in the device of the vdev that they went to.",
        labels: LOG_LABELS,
        hooks: VDEV,
        switch: Some("SWITCH_ZFS_LOG_WRITES"),
        cost: Cost::Medium,
        source: "module/zfs/zil.c: ZB_ZIL_LEVEL; module/zfs/vdev.c: vdev_stat_update",
        numbers: Numbers::ZfsLogs(|account, emit| emit.histogram(&[], &account.device)),
        ..ROW
    },
];
