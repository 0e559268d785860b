//! Numbers of the probes to the words of labels.

use std::sync::Arc;

use kldtrace_abi::zfs::{Op, Stage};

use crate::{collect::zfs::datasets::Name, signals::table::OTHER_LABEL};

/// The dataset of what found no room.
pub(super) fn other_name() -> Name {
    Name {
        pool: OTHER_LABEL.into(),
        dataset: OTHER_LABEL.into(),
    }
}

/// The values of the labels `pool` and `dataset`.
pub(super) fn labels(name: &Name) -> [Arc<str>; 2] {
    [name.pool.clone(), name.dataset.clone()]
}

/// The value of the label `op`.
pub(super) fn op_word(op: u16) -> &'static str {
    Op::ALL
        .get(usize::from(op))
        .map_or(OTHER_LABEL, |op| op.as_str())
}

/// The value of the label `stage`.
pub(super) fn stage_word(stage: u16) -> &'static str {
    let stage = Stage::ALL.get(usize::from(stage));
    stage.map_or(OTHER_LABEL, |stage| stage.as_str())
}

/// `enum zio_type` of include/sys/fs/zfs.h; flush was called ioctl before 2.3.
pub(super) fn type_word(kind: u32) -> &'static str {
    const WORDS: [&str; 7] = ["null", "read", "write", "free", "claim", "flush", "trim"];
    WORDS.get(kind as usize).unwrap_or(&OTHER_LABEL)
}

/// `enum zio_priority` of include/sys/zio_priority.h.
pub(super) fn priority_word(priority: u32) -> &'static str {
    const WORDS: [&str; 9] = [
        "sync_read",
        "sync_write",
        "async_read",
        "async_write",
        "scrub",
        "removal",
        "initializing",
        "trim",
        "rebuild",
    ];
    WORDS.get(priority as usize).unwrap_or(&OTHER_LABEL)
}
