//! How large the maps are: the configured memory, shared out.

use kldtrace_abi::{
    block, histogram::Histogram, places::Set, sched, tcp, wireguard, zfs, zfs_report, zfs_taskq,
    zvol,
};

use crate::catalogue::{Cost, Signal, Subject};

/// A map whose size the configuration sets.
struct Map {
    name: &'static str,
    /// Whose signals need it.
    subject: Subject,
    /// Bytes of an entry.
    entry: u64,
    /// Whether each CPU has a value of its own.
    per_cpu: bool,
    /// Its part of the memory, in relation to the others of its object.
    share: u64,
    /// Maps with as many entries, whose memory does not count.
    with: &'static [&'static str],
}

/// The kernel's own part of a hash element, with its bucket.
const ELEMENT: u64 = 64;
/// Memory of a WireGuard account, which all CPUs share.
const PEER: u64 = (size_of::<wireguard::PeerKey>() + size_of::<wireguard::Peer>()) as u64 + ELEMENT;
/// Memory of a peer in the list of those that live.
const SEEN: u64 = 8 + size_of::<wireguard::Seen>() as u64 + ELEMENT;
/// Memory of a handshake under way.
const START: u64 = 8 + size_of::<wireguard::Start>() as u64 + ELEMENT;

const MAPS: &[Map] = &[
    Map {
        name: "SCHED",
        subject: Subject::Sched,
        entry: size_of::<sched::Sched>() as u64,
        per_cpu: true,
        share: 50,
        with: &["SCHED_SLOTS", "SCHED_FREE"],
    },
    Map {
        name: "TASKS",
        subject: Subject::Sched,
        entry: size_of::<Set<sched::Task>>() as u64,
        per_cpu: false,
        share: 4,
        with: &[],
    },
    Map {
        name: "TCP",
        subject: Subject::Tcp,
        entry: size_of::<tcp::Tcp>() as u64,
        per_cpu: true,
        share: 30,
        with: &["TCP_SLOTS", "TCP_FREE", "TCP_OWNERS"],
    },
    Map {
        name: "SOCKETS",
        subject: Subject::Tcp,
        entry: size_of::<Set<tcp::Socket>>() as u64,
        per_cpu: false,
        share: 10,
        with: &[],
    },
    Map {
        name: "BLOCK",
        subject: Subject::Block,
        entry: size_of::<block::Block>() as u64,
        per_cpu: true,
        share: 10,
        with: &["BLOCK_SLOTS", "BLOCK_FREE", "BLOCK_OWNERS"],
    },
    Map {
        name: "ZFS_OPS",
        subject: Subject::Zfs,
        entry: size_of::<zfs::Operations>() as u64,
        per_cpu: true,
        share: 30,
        with: &["ZFS_OPS_SLOTS", "ZFS_OPS_FREE", "ZFS_OPS_OWNERS"],
    },
    Map {
        name: "ZFS_STAGES",
        subject: Subject::Zfs,
        entry: size_of::<Histogram>() as u64,
        per_cpu: true,
        share: 30,
        with: &[],
    },
    Map {
        name: "ZFS_VDEVS",
        subject: Subject::Zfs,
        entry: size_of::<zfs::Vdev>() as u64,
        per_cpu: true,
        share: 25,
        with: &[],
    },
    Map {
        name: "ZFS_LOGS",
        subject: Subject::Zfs,
        entry: size_of::<zfs::LogWrites>() as u64,
        per_cpu: true,
        share: 15,
        with: &[],
    },
    Map {
        name: "ZFS_ZVOLS",
        subject: Subject::Zfs,
        entry: size_of::<zvol::Zvol>() as u64,
        per_cpu: true,
        share: 15,
        with: &[],
    },
    Map {
        name: "ZFS_ZVOL_STARTS",
        subject: Subject::Zfs,
        entry: 16 + ELEMENT,
        per_cpu: false,
        share: 5,
        with: &[],
    },
    Map {
        name: "ZFS_REPORTS",
        subject: Subject::Zfs,
        entry: size_of::<zfs_report::Reports>() as u64 + ELEMENT,
        per_cpu: true,
        share: 3,
        with: &[],
    },
    Map {
        name: "ZFS_SYNCS",
        subject: Subject::Zfs,
        entry: size_of::<Histogram>() as u64,
        per_cpu: true,
        share: 2,
        with: &[],
    },
    Map {
        name: "ZFS_TASKQS",
        subject: Subject::Zfs,
        entry: size_of::<Histogram>() as u64,
        per_cpu: true,
        share: 2,
        with: &[],
    },
    Map {
        name: "ZFS_TASKS",
        subject: Subject::Zfs,
        entry: size_of::<zfs_taskq::Task>() as u64 + 8 + ELEMENT,
        per_cpu: false,
        share: 5,
        with: &[],
    },
    Map {
        name: "WIREGUARD",
        subject: Subject::Wireguard,
        entry: PEER,
        per_cpu: false,
        share: 90,
        with: &[],
    },
    Map {
        name: "WIREGUARD_PEERS",
        subject: Subject::Wireguard,
        entry: SEEN,
        per_cpu: false,
        share: 5,
        with: &[],
    },
    Map {
        name: "HANDSHAKES",
        subject: Subject::Wireguard,
        entry: START,
        per_cpu: false,
        share: 5,
        with: &[],
    },
];

/// The number in the probes that says how many sets a table has.
pub(super) fn number_of_sets(map: &str) -> Option<&'static str> {
    match map {
        "SOCKETS" => Some("SOCKET_SETS"),
        "TASKS" => Some("TASK_SETS"),
        _ => None,
    }
}

/// Maps of signals that are on only where they are asked for by name.
const ON_DEMAND: &[&str] = &["ZFS_TASKQS", "ZFS_TASKS"];

/// Entries for each map of the object of these signals, and one for a map that
/// none of them needs.
pub(super) fn map_sizes(
    enabled: &[&'static Signal],
    memory: u64,
    cpus: u64,
) -> Vec<(&'static str, u32)> {
    let used = |map: &Map| {
        let on_demand = ON_DEMAND.contains(&map.name);
        enabled.iter().any(|signal| {
            signal.subject == map.subject
                && !signal.hooks.is_empty()
                && (signal.cost == Cost::OnDemand) == on_demand
        })
    };
    let shares: u64 = MAPS
        .iter()
        .filter(|map| used(map))
        .map(|map| map.share)
        .sum();
    MAPS.iter()
        .flat_map(|map| {
            let entries = if used(map) {
                let size = map.entry * if map.per_cpu { cpus } else { 1 };
                (memory * map.share / shares / size).clamp(16, 1 << 20)
            } else {
                1
            };
            let names = [map.name].into_iter().chain(map.with.iter().copied());
            names.map(move |name| (name, entries as u32))
        })
        .collect()
}
