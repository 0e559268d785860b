//! Listening TCP sockets whose accept queue overflowed.
//!
//! No tracepoint fires when a SYN, or the ACK that ends a handshake, finds the
//! accept queue of a listener full: `tcp_conn_request` (net/ipv4/tcp_input.c)
//! and `tcp_v4_syn_recv_sock` (net/ipv4/tcp_ipv4.c, as its twin for IPv6)
//! count `ListenOverflows`, and `tcp_listendrop` (include/net/tcp.h) counts
//! `ListenDrops` and the `sk_drops` of the listener. So these counters are
//! read, in every network namespace of the node.
//!
//! The drops of a listener are more than its overflows: a SYN dropped for
//! another reason (no memory, no route back) counts, and so does a segment
//! that no listener can use (`tcp_rcv_state_process`). They are more than
//! `ListenDrops`, too: the ACK of a handshake that finds the queue full counts
//! there once and at the socket twice, as `tcp_v4_rcv` discards it in the
//! listener's name.

pub(crate) mod namespaces;
mod netlink;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use namespaces::{Finder, Netstat, Stop, View};
use netlink::{MOST_SOCKETS, Socket};

/// How long a listing of the namespaces serves.
const LISTING: Duration = Duration::from_secs(10);
/// How long a list of listeners serves where `ListenDrops` does not move. A
/// dump walks a hash table that all namespaces share (`tcp_diag_dump`,
/// net/ipv4/tcp_diag.c): up to 65,536 buckets, once for each of them. Drops that
/// are not `ListenDrops` show after this time.
const DUMP: Duration = Duration::from_mins(1);
/// Network namespaces that are read; those beyond count as failures.
const MOST_NAMESPACES: usize = 256;
/// Label sets; the listeners beyond go to the unit [`OTHER`].
const MOST_LABELS: usize = 1000;
/// Dumps that a listener may be missing from before it is forgotten: a dump of
/// several datagrams goes on by position, and skips one when another closes.
const MOST_MISSED: u8 = 2;
/// The unit of listeners beyond [`MOST_LABELS`].
const OTHER: &str = "other";

/// Labels of listening sockets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening {
    /// The unit in whose cgroup the socket was made: for a socket that systemd
    /// hands over, systemd's own.
    pub unit: Arc<str>,
    /// The interface that it is bound to, as its namespace names it; empty:
    /// none.
    pub interface: Arc<str>,
    /// `ipv4` or `ipv6`; a listener for both is `ipv6`.
    pub family: &'static str,
}

/// The drops of all listeners since the first read. What was dropped after the
/// last read of a listener or namespace that is gone is never known.
#[derive(Debug, Default)]
pub struct Listeners {
    finder: Finder,
    namespaces: BTreeMap<u64, Namespace>,
    listed: Option<Instant>,
    dumped: Option<Instant>,
    /// Namespaces beyond the limit, and processes in namespaces unknown, at
    /// the last listing.
    skipped: usize,
    hidden: usize,
    overflows: u64,
    drops: BTreeMap<Listening, u64>,
    failures: u64,
}

/// What is remembered of a namespace.
#[derive(Debug, Default)]
struct Namespace {
    path: PathBuf,
    cookie: u64,
    /// It may be older than the first read: what its counters say at first
    /// sight is the baseline, not news. A namespace found later counts from
    /// its making.
    old: bool,
    counted: Option<Netstat>,
    /// The counters when the listeners were read.
    dumped: Option<Netstat>,
    sockets: HashMap<u64, Remembered>,
}

#[derive(Debug)]
struct Remembered {
    label: Listening,
    drops: u32,
    missed: u8,
}

impl Listeners {
    /// Remembers nothing yet: the first read is the baseline.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads all network namespaces. `unit_of` names a cgroup id, 0 being
    /// unknown. An error is the first of this read; what could be read counts
    /// all the same, and each failure is in [`Self::failures`].
    pub fn read(&mut self, unit_of: &dyn Fn(u64) -> Arc<str>) -> Result<()> {
        let mut errors = Vec::new();
        if due(self.listed, LISTING) {
            errors.extend(self.list().err());
        }
        let full = due(self.dumped, DUMP);
        if full {
            self.dumped = Some(Instant::now());
        }
        match namespaces::visit(self.stops(full)) {
            Err(error) => errors.push(error),
            Ok(answers) => {
                for (inode, answer) in answers {
                    let taken = answer.and_then(|view| self.take(inode, view, unit_of));
                    errors.extend(taken.err());
                }
            }
        }
        self.failures += errors.len() as u64;
        if self.skipped > 0 {
            self.failures += self.skipped as u64;
            errors.push(anyhow!(
                "{} network namespaces beyond the first {MOST_NAMESPACES} are not read",
                self.skipped
            ));
        }
        if self.hidden > 0 {
            self.failures += 1;
            errors.push(anyhow!(
                "network namespaces of {} processes are hidden (needs CAP_SYS_PTRACE)",
                self.hidden
            ));
        }
        errors.into_iter().next().map_or(Ok(()), Err)
    }

    /// `ListenOverflows` of all namespaces since the first read.
    pub fn overflows(&self) -> u64 {
        self.overflows
    }

    /// Drops of all listeners since the first read, those that are closed
    /// included.
    pub fn drops(&self) -> &BTreeMap<Listening, u64> {
        &self.drops
    }

    /// What could not be read: namespaces and listings, once for each read.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// Learns which namespaces exist, and forgets those that do not.
    fn list(&mut self) -> Result<()> {
        let mut listing = self.finder.list()?;
        let old = self.listed.is_none() || self.skipped > 0;
        self.listed = Some(Instant::now());
        self.hidden = listing.hidden;
        self.namespaces
            .retain(|inode, namespace| match listing.paths.remove(inode) {
                None => false,
                Some(path) => {
                    namespace.path = path;
                    true
                }
            });
        let room = MOST_NAMESPACES.saturating_sub(self.namespaces.len());
        self.skipped = listing.paths.len().saturating_sub(room);
        for (inode, path) in listing.paths.into_iter().take(room) {
            self.namespaces.insert(
                inode,
                Namespace {
                    path,
                    old,
                    ..Namespace::default()
                },
            );
        }
        self.prune();
        Ok(())
    }

    fn stops(&self, full: bool) -> Vec<Stop> {
        let stops = self.namespaces.iter().map(|(&inode, namespace)| Stop {
            inode,
            path: namespace.path.clone(),
            known: namespace
                .dumped
                .filter(|_| !full)
                .map(|netstat| (namespace.cookie, netstat)),
        });
        stops.collect()
    }

    /// Counts what a namespace says; `None`: it was not where it was listed.
    fn take(
        &mut self,
        inode: u64,
        view: Option<View>,
        unit_of: &dyn Fn(u64) -> Arc<str>,
    ) -> Result<()> {
        let Some(view) = view else {
            self.finder.distrust();
            return Ok(());
        };
        let tracked: usize = self
            .namespaces
            .values()
            .map(|other| other.sockets.len())
            .sum();
        let Some(namespace) = self.namespaces.get_mut(&inode) else {
            return Ok(());
        };
        if namespace.counted.is_some() && namespace.cookie != view.cookie {
            // The kernel gives the inode of a dead namespace to a new one.
            let path = namespace.path.clone();
            *namespace = Namespace {
                path,
                ..Namespace::default()
            };
        }
        namespace.cookie = view.cookie;
        let before = match namespace.counted {
            Some(last) => last.overflows,
            None if namespace.old => view.netstat.overflows,
            None => 0,
        };
        self.overflows += view.netstat.overflows.saturating_sub(before);
        namespace.counted = Some(view.netstat);
        let named = || format!("network namespace {}", namespace.path.display());
        let Some(listeners) = view.listeners.transpose().with_context(named)? else {
            return Ok(());
        };
        if tracked - namespace.sockets.len() + listeners.len() > MOST_SOCKETS {
            return Err(anyhow!("more than {MOST_SOCKETS} listeners on the node"))
                .with_context(named);
        }
        let baseline = namespace.old && namespace.dumped.is_none();
        namespace.dumped = Some(view.netstat);
        for remembered in namespace.sockets.values_mut() {
            remembered.missed += 1;
        }
        for (socket, interface) in listeners {
            let unit = unit_of(socket.cgroup);
            let label = Listening {
                unit,
                interface,
                family: socket.family,
            };
            let label = bounded(label, &self.drops);
            let news = remember(&mut namespace.sockets, &socket, &label, baseline);
            *self.drops.entry(label).or_default() += u64::from(news);
        }
        let before = namespace.sockets.len();
        namespace
            .sockets
            .retain(|_, remembered| remembered.missed <= MOST_MISSED);
        if namespace.sockets.len() < before {
            self.prune();
        }
        Ok(())
    }

    /// Forgets labels that never counted anything and have no listener left.
    fn prune(&mut self) {
        let sockets = self
            .namespaces
            .values()
            .flat_map(|namespace| namespace.sockets.values());
        let alive: BTreeSet<_> = sockets.map(|remembered| &remembered.label).collect();
        self.drops
            .retain(|label, drops| *drops > 0 || alive.contains(label));
    }
}

/// Whether what was done at `last` is to be done again.
fn due(last: Option<Instant>, period: Duration) -> bool {
    last.is_none_or(|last| last.elapsed() >= period)
}

/// The label, or the one that stands for all beyond the limit.
fn bounded(label: Listening, drops: &BTreeMap<Listening, u64>) -> Listening {
    if drops.len() < MOST_LABELS || drops.contains_key(&label) {
        return label;
    }
    Listening {
        unit: OTHER.into(),
        interface: "".into(),
        ..label
    }
}

/// Remembers the drops of a listener; returns those that are news.
fn remember(
    sockets: &mut HashMap<u64, Remembered>,
    socket: &Socket,
    label: &Listening,
    baseline: bool,
) -> u32 {
    let label = label.clone();
    match sockets.entry(socket.cookie) {
        Entry::Vacant(entry) => {
            entry.insert(Remembered {
                label,
                drops: socket.drops,
                missed: 0,
            });
            if baseline { 0 } else { socket.drops }
        }
        Entry::Occupied(mut entry) => {
            let news = socket.drops.wrapping_sub(entry.get().drops);
            entry.insert(Remembered {
                label,
                drops: socket.drops,
                missed: 0,
            });
            // Half the range in one go is a counter that went backwards.
            if news > u32::MAX / 2 { 0 } else { news }
        }
    }
}
