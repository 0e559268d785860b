//! The one table of signals.
//!
//! The loader, `doctor`, `latency --list`, the exported families, the
//! generated reference and the tests all read it. A signal that is not here
//! does not exist.

mod block;
pub mod digests;
mod events;
mod journal;
mod own;
mod planes;
mod pushing;
mod sched;
mod serving;
#[cfg(test)]
mod shown;
mod tcp;
mod wireguard;
mod zfs;
mod zfs_state;
mod zfs_taskq;
mod zfs_trouble;
mod zfs_zvol;

use digests::DIGESTS;
pub use events::{EVENTS, EventKind, told};
use kldtrace_abi::{
    block::Block, histogram::Histogram, sched::Sched, tcp::Tcp, zfs as zfs_abi, zvol::Zvol,
};
use kldtrace_exporters::model::{Kind, Unit};

use crate::{
    kernel::object::{NODE, ObjectFile, PLANE, WIREGUARD, ZFS},
    signals::{
        families::Emit,
        own::Facts,
        planes::PlanesRead,
        wireguard::accounts::{InterfaceAccount, PeerAccount},
        zfs::ZfsRead,
    },
};

/// What `kldtrace latency` and the configuration call a group of signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The scheduler.
    Sched,
    /// TCP sockets.
    Tcp,
    /// Block devices.
    Block,
    /// OpenZFS.
    Zfs,
    /// WireGuard.
    Wireguard,
    /// Planes: what their filters let pass.
    Planes,
    /// kldtrace itself.
    Own,
}

impl Subject {
    /// All subjects, in the order in which people see them.
    pub const ALL: [Self; 7] = [
        Self::Sched,
        Self::Tcp,
        Self::Block,
        Self::Zfs,
        Self::Wireguard,
        Self::Planes,
        Self::Own,
    ];

    /// The name that people type and read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sched => "sched",
            Self::Tcp => "tcp",
            Self::Block => "block",
            Self::Zfs => "zfs",
            Self::Wireguard => "wireguard",
            Self::Planes => "planes",
            Self::Own => "self",
        }
    }

    /// The object of probes that its signals' programs are in.
    pub fn object(self) -> &'static ObjectFile {
        match self {
            Self::Sched | Self::Tcp | Self::Block | Self::Own => &NODE,
            Self::Zfs => &ZFS,
            Self::Wireguard => &WIREGUARD,
            Self::Planes => &PLANE,
        }
    }
}

/// How much a signal costs where it is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Read when asked for; nothing runs in between.
    Read,
    /// At rare events: connections, errors, migrations.
    Low,
    /// At every request or packet.
    Medium,
    /// At every context switch.
    High,
    /// Several times at every request: off unless `[signals] enable` names the
    /// signal in full.
    OnDemand,
}

impl Cost {
    /// The word in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::OnDemand => "on demand",
        }
    }
}

/// Where the kernel calls a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Attach {
    /// A BTF-typed raw tracepoint: arguments are typed pointers.
    TpBtf(&'static str),
    /// A raw tracepoint: arguments are untyped, fields need a helper.
    RawTp(&'static str),
    /// The entry of a kernel function, by BPF trampoline.
    Fentry(&'static str),
    /// The return of a kernel function, with its arguments, by BPF trampoline.
    Fexit(&'static str),
    /// The entry of a kernel function, by breakpoint or ftrace.
    Kprobe(&'static str),
    /// The return of a kernel function.
    Kretprobe(&'static str),
    /// A cgroup hook on socket addresses, at the root of cgroup v2.
    CgroupSockAddr(&'static str),
}

impl Attach {
    /// The word for the kind, as configuration and `doctor` use it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::TpBtf(_) => "tp_btf",
            Self::RawTp(_) => "raw_tp",
            Self::Fentry(_) => "fentry",
            Self::Fexit(_) => "fexit",
            Self::Kprobe(_) => "kprobe",
            Self::Kretprobe(_) => "kretprobe",
            Self::CgroupSockAddr(_) => "cgroup",
        }
    }

    /// What it attaches to.
    pub fn target(self) -> &'static str {
        match self {
            Self::TpBtf(name)
            | Self::RawTp(name)
            | Self::Fentry(name)
            | Self::Fexit(name)
            | Self::Kprobe(name)
            | Self::Kretprobe(name)
            | Self::CgroupSockAddr(name) => name,
        }
    }
}

impl std::fmt::Display for Attach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind(), self.target())
    }
}

/// A program of the probes and the hook that it is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Hook {
    /// The program's name in the probes' object file.
    pub program: &'static str,
    /// Where it attaches.
    pub attach: Attach,
}

/// Where a signal's numbers lie once they are read, and how to take them out.
/// Label values that the account does not have are the last in `labels`.
#[derive(Debug)]
pub enum Numbers {
    /// In the account of a cgroup; label `unit`.
    Sched(fn(&Sched, &mut Emit<'_>)),
    /// In the account of a cgroup, interface and family; labels `unit`,
    /// `interface`, `family`.
    Tcp(fn(&Tcp, &mut Emit<'_>)),
    /// In the account of a device and operation; labels `device`, `op`.
    Block(fn(&Block, &mut Emit<'_>)),
    /// In the account of a dataset's operations; labels `pool`, `dataset`,
    /// `op`, `sync`.
    ZfsOps(fn(zfs_abi::Op, &zfs_abi::Operations, &mut Emit<'_>)),
    /// A histogram by dataset, operation and stage; labels `pool`, `dataset`,
    /// `op`, `stage`.
    ZfsStages(fn(&Histogram, &mut Emit<'_>)),
    /// In the account of a vdev; labels `pool`, `vdev`, `type`, `priority`.
    ZfsVdevs(fn(&zfs_abi::Vdev, &mut Emit<'_>)),
    /// In the account of intent-log writes; labels `pool`, `dataset`, `vdev`,
    /// `log`.
    ZfsLogs(fn(&zfs_abi::LogWrites, &mut Emit<'_>)),
    /// In the account of a volume's requests; labels `pool`, `dataset`, `op`.
    ZfsZvols(fn(&Zvol, &mut Emit<'_>)),
    /// A number by vdev and class of report; labels `pool`, `vdev`.
    ZfsReports(fn(&str, u64, &mut Emit<'_>)),
    /// A histogram by pool; label `pool`.
    ZfsSyncs(fn(&Histogram, &mut Emit<'_>)),
    /// A histogram by name of a queue of tasks; label `taskq`.
    ZfsTaskqs(fn(&Histogram, &mut Emit<'_>)),
    /// In what OpenZFS tells of itself.
    ZfsState(fn(&ZfsRead, &mut Emit<'_>)),
    /// In the account of a WireGuard peer; labels `interface`, `plane`, `peer`.
    Wireguard(fn(&PeerAccount, &mut Emit<'_>)),
    /// In the account of a WireGuard interface; labels `interface`, `plane`.
    WireguardInterface(fn(&InterfaceAccount, &mut Emit<'_>)),
    /// In what the planes' programs have counted.
    Planes(fn(&PlanesRead, &mut Emit<'_>)),
    /// In the state that is read at once.
    Facts(fn(&Facts, &mut Emit<'_>)),
}

/// One signal: everything that is known of it before the kernel is asked.
#[derive(Debug)]
pub struct Signal {
    /// Short name, `subject.what`: what the configuration and `doctor` say.
    pub name: &'static str,
    /// The group that it belongs to.
    pub subject: Subject,
    /// Exported family, without `_total`.
    pub metric: &'static str,
    /// Histogram, counter or gauge.
    pub kind: Kind,
    /// Base unit.
    pub unit: Unit,
    /// One sentence for people, also the `# HELP` line.
    pub help: &'static str,
    /// Label names, in order of output.
    pub labels: &'static [&'static str],
    /// Hooks that must all be there; each is a list of candidates, the
    /// preferred one first. Empty: the signal is read, not traced.
    pub hooks: &'static [&'static [Hook]],
    /// Kernel fields that this signal reads beyond what its programs always
    /// read, as `struct.field.field`. One that this kernel lacks turns off
    /// this signal and no other.
    pub fields: &'static [&'static str],
    /// The probes' switch for this signal; `None` where the program does
    /// nothing else or the signal is read.
    pub switch: Option<&'static str>,
    /// Cost class.
    pub cost: Cost,
    /// The kernel or specification source that the numbers follow.
    pub source: &'static str,
    /// How its series come out of what was read.
    pub numbers: Numbers,
}

/// What rows that are read have in common until they say otherwise.
const READ: Signal = Signal {
    name: "",
    subject: Subject::Own,
    metric: "",
    kind: Kind::Counter,
    unit: Unit::None,
    help: "",
    labels: &[],
    hooks: &[],
    fields: &[],
    switch: None,
    cost: Cost::Read,
    source: "",
    numbers: Numbers::Facts(|_, _| {}),
};

/// Every signal, by subject.
pub fn signals() -> impl Iterator<Item = &'static Signal> {
    [
        sched::SIGNALS,
        tcp::SIGNALS,
        block::SIGNALS,
        zfs::SIGNALS,
        zfs_zvol::SIGNALS,
        zfs_trouble::SIGNALS,
        zfs_taskq::SIGNALS,
        zfs_state::SIGNALS,
        wireguard::SIGNALS,
        planes::SIGNALS,
        own::SIGNALS,
        serving::SIGNALS,
        pushing::SIGNALS,
        journal::SIGNALS,
    ]
    .into_iter()
    .flatten()
}

/// A family as it is exported: of a signal, or of a digest of one.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The signal, or the one that it is made of.
    pub signal: &'static Signal,
    /// Its name, without `_total`.
    pub metric: &'static str,
    /// Histogram, counter or gauge.
    pub kind: Kind,
    /// Base unit.
    pub unit: Unit,
    /// One sentence for people.
    pub help: &'static str,
    /// Label names, in order of output.
    pub labels: Vec<&'static str>,
}

impl Exported {
    /// The name of the exported family: counters end in `_total`.
    pub fn name(&self) -> String {
        exported_name(self.metric, self.kind)
    }
}

/// Every family: those of signals, and then those of digests.
pub fn exported() -> impl Iterator<Item = Exported> {
    let signals = signals().map(|signal| Exported {
        signal,
        metric: signal.metric,
        kind: signal.kind,
        unit: signal.unit,
        help: signal.help,
        labels: signal.labels.to_vec(),
    });
    let digests = DIGESTS.iter().flat_map(|digest| {
        digest.makes.iter().map(|made| Exported {
            signal: digest.signal(),
            metric: made.metric,
            kind: made.kind(),
            unit: digest.unit_of(made),
            help: made.help,
            labels: digest.labels_of(made),
        })
    });
    signals.chain(digests)
}

/// The signal of that name.
pub fn find(name: &str) -> Option<&'static Signal> {
    signals().find(|signal| signal.name == name)
}

impl Signal {
    /// The name of the exported family: counters end in `_total`.
    pub fn exported_name(&self) -> String {
        exported_name(self.metric, self.kind)
    }

    /// The labels that `kldtrace latency` tells apart where nobody says which.
    pub fn usual_groups(&self) -> &'static [&'static str] {
        match self.subject {
            Subject::Zfs => zfs::usual_groups(self.name),
            Subject::Wireguard => &["interface", "peer", "role"],
            _ => &[],
        }
    }
}

fn exported_name(metric: &str, kind: Kind) -> String {
    match kind {
        Kind::Counter => format!("{metric}_total"),
        _ => metric.to_owned(),
    }
}

/// A program that has the name of its tracepoint.
const fn tp_btf(name: &'static str) -> Hook {
    tp_btf_of(name, name)
}

/// A program at a tracepoint.
const fn tp_btf_of(program: &'static str, tracepoint: &'static str) -> Hook {
    Hook {
        program,
        attach: Attach::TpBtf(tracepoint),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut names = HashSet::new();
        let mut metrics = HashSet::new();
        for signal in signals() {
            assert!(names.insert(signal.name), "{} twice", signal.name);
            assert!(metrics.insert(signal.metric), "{} twice", signal.metric);
            let prefix = format!("{}.", signal.subject.as_str());
            assert!(signal.name.starts_with(&prefix), "{}", signal.name);
            assert!(!signal.metric.ends_with("_total"), "{}", signal.metric);
            if let Some(unit) = signal.unit.as_str() {
                assert!(signal.metric.ends_with(unit), "{}", signal.metric);
            }
            assert!(signal.help.ends_with('.'), "{}", signal.name);
            assert!(!signal.source.is_empty(), "{}", signal.name);
        }
    }

    #[test]
    fn histograms_are_of_durations() {
        for signal in signals().filter(|s| s.kind == Kind::Histogram) {
            assert_eq!(signal.unit, Unit::Seconds, "{}", signal.name);
        }
    }
}
