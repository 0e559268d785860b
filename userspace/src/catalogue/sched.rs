//! Scheduler signals; probes/src/sched.rs.

use kldtrace_abi::sched::{OffCpu, QUEUED_BY_PREEMPTION, QUEUED_BY_WAKEUP};
use kldtrace_exporters::model::{Kind, Unit};

use super::{Cost, Hook, Numbers, Signal, Subject, tp_btf};

const SWITCH: &[Hook] = &[tp_btf("sched_switch")];
const MIGRATE: &[Hook] = &[tp_btf("sched_migrate_task")];
// They give each new cgroup a slot for its account.
const MKDIR: &[Hook] = &[tp_btf("cgroup_mkdir")];
const RMDIR: &[Hook] = &[tp_btf("cgroup_rmdir")];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "sched.runqueue_latency",
        subject: Subject::Sched,
        metric: "kldtrace_sched_runqueue_latency_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time that tasks waited for a CPU, after a wake-up or a preemption.",
        labels: &["unit", "reason"],
        hooks: &[SWITCH, MKDIR, RMDIR],
        fields: &[
            "task_struct.sched_info.last_queued",
            "task_struct.sched_info.run_delay",
        ],
        switch: Some("SWITCH_SCHED_RUNQUEUE"),
        cost: Cost::High,
        source: "kernel/sched/stats.h: sched_info_arrive; a wait across migrations is one wait, and the sum is that of /proc/PID/schedstat",
        numbers: Numbers::Sched(|account, emit| {
            emit.histogram(&["wakeup"], &account.runqueue[QUEUED_BY_WAKEUP]);
            emit.histogram(&["preempted"], &account.runqueue[QUEUED_BY_PREEMPTION]);
        }),
    },
    Signal {
        name: "sched.oncpu_time",
        subject: Subject::Sched,
        metric: "kldtrace_sched_oncpu_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time that tasks ran on a CPU without a break, one observation for each slice.",
        labels: &["unit"],
        hooks: &[SWITCH, MKDIR, RMDIR],
        fields: &["task_struct.sched_info.last_arrival"],
        switch: Some("SWITCH_SCHED_ONCPU"),
        cost: Cost::High,
        source: "kernel/sched/stats.h: sched_info_depart",
        numbers: Numbers::Sched(|account, emit| emit.histogram(&[], &account.oncpu)),
    },
    Signal {
        name: "sched.offcpu_time",
        subject: Subject::Sched,
        metric: "kldtrace_sched_offcpu_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time that tasks were off CPU, from leaving it to coming back, by why they left.",
        labels: &["unit", "reason"],
        hooks: &[SWITCH, MKDIR, RMDIR],
        fields: &[],
        switch: Some("SWITCH_SCHED_OFFCPU"),
        cost: Cost::High,
        source: "include/trace/events/sched.h: sched_switch",
        numbers: Numbers::Sched(|account, emit| {
            for reason in OffCpu::ALL {
                emit.histogram(&[reason.as_str()], &account.offcpu[reason as usize]);
            }
        }),
    },
    Signal {
        name: "sched.context_switches",
        subject: Subject::Sched,
        metric: "kldtrace_sched_context_switches",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Context switches away from a task, by why it left the CPU.",
        labels: &["unit", "reason"],
        hooks: &[SWITCH, MKDIR, RMDIR],
        fields: &[],
        switch: Some("SWITCH_SCHED_SWITCHES"),
        cost: Cost::High,
        source: "include/trace/events/sched.h: sched_switch; /proc/PID/status: voluntary_ctxt_switches is voluntary and uninterruptible, nonvoluntary_ctxt_switches is preempted",
        numbers: Numbers::Sched(|account, emit| {
            for reason in OffCpu::ALL {
                emit.integer(&[reason.as_str()], account.switches[reason as usize]);
            }
        }),
    },
    Signal {
        name: "sched.migrations",
        subject: Subject::Sched,
        metric: "kldtrace_sched_migrations",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Moves of a task to another CPU.",
        labels: &["unit"],
        hooks: &[MIGRATE, MKDIR, RMDIR],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "include/trace/events/sched.h: sched_migrate_task",
        numbers: Numbers::Sched(|account, emit| emit.integer(&[], account.migrations)),
    },
];
