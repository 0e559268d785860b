//! Signals of planes; probes/src/plane/ counts, and the pinned maps are read.

use kldtrace_exporters::model::{Kind, Unit};

use super::{Numbers, READ, Signal, Subject};
use crate::signals::planes::Verdict;

/// What the rows have in common.
const ROW: Signal = Signal {
    subject: Subject::Planes,
    source: "probes/abi/src/plane/count.rs",
    ..READ
};

/// The rows, in the order in which they are shown.
pub(super) const SIGNALS: &[Signal] = &[
    Signal {
        name: "planes.packets",
        metric: "kldtrace_plane_packets",
        help: "Packets that arrived on a plane, by what became of them and why. would_drop: they passed, as the plane is in audit mode; limited: over a rule's rate, dropped or in audit mode not.",
        labels: &["plane", "verdict", "reason"],
        numbers: Numbers::Planes(|read, emit| {
            for plane in &read.planes {
                for (verdict, reason, count) in &plane.counts {
                    let labels = [&plane.name, verdict.as_str(), reason.as_str()];
                    emit.integer(&labels, count.packets);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.bytes",
        metric: "kldtrace_plane_bytes",
        unit: Unit::Bytes,
        help: "Bytes of packets that arrived on a plane, by what became of them: of IP's packets without the headers in front.",
        labels: &["plane", "verdict"],
        numbers: Numbers::Planes(|read, emit| {
            for plane in &read.planes {
                for verdict in Verdict::ALL {
                    let counts = plane.counts.iter().filter(|(one, ..)| *one == verdict);
                    let bytes = counts.map(|(_, _, count)| count.bytes).sum();
                    emit.integer(&[&plane.name, verdict.as_str()], bytes);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.rule_packets",
        metric: "kldtrace_plane_rule_packets",
        help: "First packets that a rule decided, by what became of them; those of known flows are in kldtrace_plane_packets_total. In brackets: floor and default. @: a block list. Of what crosses, the way stands in front.",
        labels: &["plane", "rule", "verdict"],
        numbers: Numbers::Planes(|read, emit| {
            for rule in &read.rules {
                for (verdict, packets) in Verdict::ALL.into_iter().zip(rule.packets) {
                    emit.unless_zero(&[&rule.plane, &rule.name, verdict.as_str()], packets);
                }
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.attached",
        metric: "kldtrace_plane_attached",
        kind: Kind::Gauge,
        help: "Whether the programs of a plane are on an interface of it (1) or not (0), and where they run: native in the driver, generic in the network stack.",
        labels: &["plane", "interface", "mode"],
        source: "net/core/rtnetlink.c: rtnl_xdp_fill; pinned links",
        numbers: Numbers::Planes(|read, emit| {
            for one in &read.attached {
                let labels = [&*one.plane, &one.interface, one.mode.unwrap_or("none")];
                emit.integer(&labels, one.mode.is_some().into());
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.enforcing",
        metric: "kldtrace_plane_enforcing",
        kind: Kind::Gauge,
        help: "Whether what a plane does not allow is dropped (1), or passes and is counted (0): in audit mode, or after kldtrace planes panic-open.",
        labels: &["plane"],
        source: "the policy that is applied",
        numbers: Numbers::Planes(|read, emit| {
            for plane in &read.planes {
                emit.integer(&[&plane.name], plane.enforcing.into());
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.generation",
        metric: "kldtrace_plane_generation",
        kind: Kind::Gauge,
        help: "The policy that is applied, by its number.",
        source: "the policy that is applied",
        numbers: Numbers::Planes(|read, emit| emit.integer(&[], read.generation.into())),
        ..ROW
    },
    Signal {
        name: "planes.applied",
        metric: "kldtrace_plane_applied_timestamp_seconds",
        kind: Kind::Gauge,
        unit: Unit::Seconds,
        help: "When the policy was applied, in seconds since 1970.",
        source: "the policy that is applied",
        numbers: Numbers::Planes(|read, emit| emit.integer(&[], read.applied)),
        ..ROW
    },
    Signal {
        name: "planes.flows",
        metric: "kldtrace_plane_flows",
        kind: Kind::Gauge,
        help: "Flows that are known, by whether they were seen in the last two minutes (recent) or not (older). A full table forgets the one that was used longest ago.",
        labels: &["family", "age"],
        source: "probes/abi/src/plane/flow.rs",
        numbers: Numbers::Planes(|read, emit| {
            for flows in &read.flows {
                emit.integer(&[flows.family, "recent"], flows.recent);
                emit.integer(&[flows.family, "older"], flows.older);
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.flow_capacity",
        metric: "kldtrace_plane_flow_capacity",
        kind: Kind::Gauge,
        help: "Flows that can be known.",
        labels: &["family"],
        source: "probes/abi/src/plane/flow.rs",
        numbers: Numbers::Planes(|read, emit| {
            for flows in &read.flows {
                emit.integer(&[flows.family], flows.capacity);
            }
        }),
        ..ROW
    },
    Signal {
        name: "planes.untold_packets",
        metric: "kldtrace_plane_untold_packets",
        help: "Packets that were dropped, or would be, and are no event: each CPU tells of 50 in a second, and as many wait as there is room for while nobody listens.",
        source: "probes/src/plane/tell.rs",
        numbers: Numbers::Planes(|read, emit| emit.integer(&[], read.untold)),
        ..ROW
    },
];
