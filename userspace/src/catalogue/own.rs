//! What kldtrace tells of itself.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Cost, Hook, Numbers, Signal, Subject, tp_btf};

const CGROUP_MKDIR: &[Hook] = &[tp_btf("cgroup_mkdir")];
const CGROUP_RMDIR: &[Hook] = &[tp_btf("cgroup_rmdir")];

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "self.signal_available",
        subject: Subject::Own,
        metric: "kldtrace_signal_available",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Whether this kernel serves a signal that the configuration asks for; doctor says why not.",
        labels: &["signal"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "docs: doctor",
        numbers: Numbers::Facts(|facts, emit| {
            for (signal, available) in &facts.signals {
                emit.integer(&[signal], u64::from(*available));
            }
        }),
    },
    Signal {
        name: "self.signal_absent",
        subject: Subject::Own,
        metric: "kldtrace_signal_absent",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "1 for each signal that the configuration asks for and this kernel does not serve; doctor says why.",
        labels: &["signal"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "docs: doctor",
        numbers: Numbers::Facts(|facts, emit| {
            for (signal, _) in facts.signals.iter().filter(|(_, available)| !available) {
                emit.integer(&[signal], 1);
            }
        }),
    },
    Signal {
        name: "self.probe_run_time",
        subject: Subject::Own,
        metric: "kldtrace_probe_run_seconds",
        kind: Kind::Counter,
        unit: Unit::Seconds,
        help: "Time that a program ran while the kernel kept statistics; divide by runs.",
        labels: &["program"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "Documentation/bpf: BPF_ENABLE_STATS, run_time_ns",
        numbers: Numbers::Facts(|facts, emit| {
            for program in &facts.programs {
                emit.float(&[program.name], program.run_time.as_secs_f64());
            }
        }),
    },
    Signal {
        name: "self.probe_runs",
        subject: Subject::Own,
        metric: "kldtrace_probe_runs",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Runs of a program while the kernel kept statistics.",
        labels: &["program"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "Documentation/bpf: BPF_ENABLE_STATS, run_cnt",
        numbers: Numbers::Facts(|facts, emit| {
            for program in &facts.programs {
                emit.integer(&[program.name], program.runs);
            }
        }),
    },
    Signal {
        name: "self.probe_misses",
        subject: Subject::Own,
        metric: "kldtrace_probe_misses",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Runs of a program that the kernel left out because it was already running on that CPU.",
        labels: &["program"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "kernel/trace/bpf_trace.c: __bpf_trace_run; recursion_misses",
        numbers: Numbers::Facts(|facts, emit| {
            for program in &facts.programs {
                emit.integer(&[program.name], program.misses);
            }
        }),
    },
    Signal {
        name: "self.probe_stats_time",
        subject: Subject::Own,
        metric: "kldtrace_probe_stats_seconds",
        kind: Kind::Counter,
        unit: Unit::Seconds,
        help: "Time for which the kernel kept statistics; run time divided by it is the share of one CPU.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "Documentation/bpf: BPF_ENABLE_STATS",
        numbers: Numbers::Facts(|facts, emit| emit.float(&[], facts.stats_time.as_secs_f64())),
    },
    Signal {
        name: "self.losses",
        subject: Subject::Own,
        metric: "kldtrace_losses",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "What could not be measured or attributed, by where it was lost.",
        labels: &["reason"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "probes/abi/src/loss.rs",
        numbers: Numbers::Facts(|facts, emit| {
            for (reason, count) in &facts.losses {
                emit.integer(&[reason], *count);
            }
        }),
    },
    Signal {
        name: "self.map_entries",
        subject: Subject::Own,
        metric: "kldtrace_map_entries",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Entries in use in a map of the probes.",
        labels: &["map"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "bpf(2): BPF_MAP_GET_NEXT_KEY",
        numbers: Numbers::Facts(|facts, emit| {
            for map in &facts.maps {
                emit.integer(&[map.name], map.entries);
            }
        }),
    },
    Signal {
        name: "self.map_max_entries",
        subject: Subject::Own,
        metric: "kldtrace_map_max_entries",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Entries that a map of the probes can hold.",
        labels: &["map"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "bpf(2): BPF_OBJ_GET_INFO_BY_FD",
        numbers: Numbers::Facts(|facts, emit| {
            for map in &facts.maps {
                emit.integer(&[map.name], map.capacity);
            }
        }),
    },
    Signal {
        name: "self.map_fullness",
        subject: Subject::Own,
        metric: "kldtrace_map_fullness_ratio",
        kind: Kind::Gauge,
        unit: Unit::Ratio,
        help: "Share of a map's entries that are in use, of the maps that are half full.",
        labels: &["map"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "bpf(2): BPF_MAP_GET_NEXT_KEY, BPF_OBJ_GET_INFO_BY_FD",
        numbers: Numbers::Facts(|facts, emit| {
            let half = facts
                .maps
                .iter()
                .filter(|map| 2 * map.entries >= map.capacity);
            for map in half.filter(|map| map.capacity > 0) {
                emit.float(&[map.name], map.entries as f64 / map.capacity as f64);
            }
        }),
    },
    Signal {
        name: "self.map_memory",
        subject: Subject::Own,
        metric: "kldtrace_map_memory_bytes",
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        help: "Kernel memory of a map of the probes.",
        labels: &["map"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "proc(5): /proc/PID/fdinfo, memlock",
        numbers: Numbers::Facts(|facts, emit| {
            for map in &facts.maps {
                emit.integer(&[map.name], map.memory);
            }
        }),
    },
    Signal {
        name: "self.series_folded",
        subject: Subject::Own,
        metric: "kldtrace_series_folded",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Label sets that have no room under the series limit and are counted as other; nothing where all have room.",
        labels: &["subject"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "docs: limits",
        numbers: Numbers::Facts(|facts, emit| {
            for (subject, folded) in &facts.folded {
                emit.unless_zero(&[subject], *folded);
            }
        }),
    },
    Signal {
        name: "self.cgroup_events",
        subject: Subject::Own,
        metric: "kldtrace_cgroup_events",
        kind: Kind::Counter,
        unit: Unit::None,
        help: "Cgroups that came or went.",
        labels: &["kind"],
        hooks: &[CGROUP_MKDIR, CGROUP_RMDIR],
        fields: &[],
        switch: None,
        cost: Cost::Low,
        source: "include/trace/events/cgroup.h",
        numbers: Numbers::Facts(|facts, emit| {
            for (kind, count) in ["made", "removed"].iter().zip(facts.cgroup_events) {
                emit.integer(&[kind], count);
            }
        }),
    },
    Signal {
        name: "self.attach_time",
        subject: Subject::Own,
        metric: "kldtrace_attach_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "Time that loading and attaching all programs took.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/kernel/loader.rs",
        numbers: Numbers::Facts(|facts, emit| emit.float(&[], facts.attach.as_secs_f64())),
    },
    Signal {
        name: "self.scrape_duration",
        subject: Subject::Own,
        metric: "kldtrace_scrape_duration_seconds",
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        help: "Time that reading the maps and encoding a scrape took, up to the scrape before.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "userspace/src/daemon/http.rs",
        numbers: Numbers::Facts(|facts, emit| emit.histogram(&[], &facts.scrapes)),
    },
    Signal {
        name: "self.cpu_time",
        subject: Subject::Own,
        metric: "kldtrace_process_cpu_seconds",
        kind: Kind::Counter,
        unit: Unit::Seconds,
        help: "CPU time of the daemon, user and system.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "getrusage(2)",
        numbers: Numbers::Facts(|facts, emit| emit.float(&[], facts.cpu.as_secs_f64())),
    },
    Signal {
        name: "self.resident_memory",
        subject: Subject::Own,
        metric: "kldtrace_process_resident_memory_bytes",
        kind: Kind::Gauge,
        unit: Unit::Bytes,
        help: "Resident memory of the daemon.",
        labels: &[],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "proc(5): /proc/PID/statm",
        numbers: Numbers::Facts(|facts, emit| emit.integer(&[], facts.resident)),
    },
    Signal {
        name: "self.build_info",
        subject: Subject::Own,
        metric: "kldtrace_build_info",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Always 1; the labels say what runs where.",
        labels: &["version", "kernel", "node"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "uname(2)",
        numbers: Numbers::Facts(|facts, emit| {
            let version = env!("CARGO_PKG_VERSION");
            emit.integer(&[version, &facts.kernel, &facts.node], 1);
        }),
    },
    Signal {
        name: "self.target_info",
        subject: Subject::Own,
        metric: "target_info",
        kind: Kind::Gauge,
        unit: Unit::None,
        help: "Always 1; the labels say whose the other series of this scrape are.",
        labels: &["node", "version", "kernel"],
        hooks: &[],
        fields: &[],
        switch: None,
        cost: Cost::Read,
        source: "OpenMetrics 1.0: Supporting target metadata",
        numbers: Numbers::Facts(|facts, emit| {
            let version = env!("CARGO_PKG_VERSION");
            emit.integer(&[&facts.node, version, &facts.kernel], 1);
        }),
    },
];
