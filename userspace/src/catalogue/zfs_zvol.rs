//! Signals of the volumes of OpenZFS; probes/src/zfs/zvol.rs.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Attach, Cost, Hook, Numbers, Signal, tp_btf_of, zfs::ROW};

const REQUESTS: &[&[Hook]] = &[
    // The end first: what has no start is passed over.
    &[
        tp_btf_of("zvol_bio_complete", "block_bio_complete"),
        Hook {
            program: "zvol_bio_complete_raw",
            attach: Attach::RawTp("block_bio_complete"),
        },
    ],
    &[Hook {
        program: "zvol_submit_bio",
        attach: Attach::Kprobe("zvol_submit_bio"),
    }],
];

const LABELS: &[&str] = &["pool", "dataset", "op"];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "zfs.zvol_latency",
        metric: "kldtrace_zfs_zvol_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time of requests to a volume, as its user feels it: from their arrival at ZFS to their end.",
        labels: LABELS,
        hooks: REQUESTS,
        cost: Cost::Medium,
        source: "module/os/linux/zfs/zvol_os.c: zvol_submit_bio; include/trace/events/block.h: block_bio_complete",
        numbers: Numbers::ZfsZvols(|account, emit| emit.histogram(&[], &account.latency)),
        ..ROW
    },
    Signal {
        name: "zfs.zvol_bytes",
        metric: "kldtrace_zfs_zvol_bytes",
        unit: Unit::Bytes,
        help: "Bytes that requests to a volume moved or discarded.",
        labels: LABELS,
        hooks: REQUESTS,
        cost: Cost::Medium,
        source: "module/zfs/dataset_kstats.c: nread, nwritten",
        numbers: Numbers::ZfsZvols(|account, emit| emit.unless_zero(&[], account.bytes)),
        ..ROW
    },
    Signal {
        name: "zfs.zvol_errors",
        metric: "kldtrace_zfs_zvol_errors",
        help: "Requests to a volume that failed.",
        labels: LABELS,
        hooks: REQUESTS,
        cost: Cost::Medium,
        source: "include/linux/blk_types.h: bio.bi_status",
        numbers: Numbers::ZfsZvols(|account, emit| emit.integer(&[], account.errors)),
        ..ROW
    },
];
