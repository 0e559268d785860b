//! Tasks of OpenZFS's threads; probes/src/zfs/taskq.rs.

use kldtrace_exporters::model::{Kind, Unit};

use super::{
    Cost, Hook, Numbers, Signal,
    zfs::{ROW, enter},
};

const TASKS: &[&[Hook]] = &[
    &[enter("zfs_task_start", "trace_zfs_taskq_ent__start")],
    &[enter("zfs_task_birth", "trace_zfs_taskq_ent__birth")],
];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[Signal {
    name: "zfs.taskq_wait",
    metric: "kldtrace_zfs_taskq_wait_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time of tasks in a queue of ZFS's threads, until one of them begins: z_rd_int is what follows a read, z_wr_iss what goes before a write.",
    labels: &["taskq"],
    hooks: TASKS,
    cost: Cost::OnDemand,
    source: "module/os/linux/spl/spl-taskq.c: taskq_ent__birth, taskq_ent__start; module/zfs/spa.c: spa_taskqs_init",
    numbers: Numbers::ZfsTaskqs(|histogram, emit| emit.histogram(&[], histogram)),
    ..ROW
}];
