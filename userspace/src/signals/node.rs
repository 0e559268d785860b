//! The kernel proper: scheduler, TCP and block accounts, cgroups, listeners.

use std::{collections::HashMap, sync::Arc, time::Instant};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use kldtrace_abi::{
    OTHER,
    block::{Block, BlockKey, Op},
    loss::Loss,
    sched::Sched,
    tcp::{Tcp, TcpKey},
};
use kldtrace_exporters::model::Family;

use super::{
    accounts::SlotAccounts,
    cgroups::Cgroups,
    devices::{Devices, interface},
    families::from_accounts,
    hash::AccountMap,
    maps::{Maps, Sum},
    own::{CollectorState, Listened, MapState},
    places::Places,
    table::{Entry, OTHER_LABEL, Table},
    worker::Worker,
};
use crate::{
    catalogue::{Numbers, Signal},
    collect::listen::Listeners,
    kernel::{
        cgroup2,
        loader::{self, Loaded, Options},
        object::NODE,
    },
};

/// Removed cgroups whose TCP accounts may wait for the next scrape.
const REMOVED: u64 = 64;

/// Labels of the TCP accounts.
type TcpLabels = (Arc<str>, Arc<str>, &'static str);
/// Labels of the block accounts.
type BlockLabels = (Arc<str>, &'static str);

/// What the node's own probes count.
pub(super) struct Node {
    loaded: Loaded,
    maps: Maps,
    events: RingBuf<MapData>,
    /// Shared with those that name events meanwhile: whoever changes it while
    /// one of them still reads gets a copy.
    cgroups: Arc<Cgroups>,
    devices: Devices,
    listeners: Worker<Listeners, Listened>,
    listen_failures: u64,
    sched: Table<Arc<str>, Sched>,
    tcp: Table<TcpLabels, Tcp>,
    block: Table<BlockLabels, Block>,
    entries: [u64; 3],
    /// Cgroups removed since the TCP accounts were read.
    removed: u64,
    events_lost: u64,
    /// Switches of tasks whose cgroup had no slot, when slots were last given
    /// to those without.
    homeless: u64,
    /// Whether there may be a free slot.
    room: bool,
}

impl Node {
    /// Loads and attaches what is wanted. `series` is the limit of label sets
    /// for each subject.
    ///
    /// # Errors
    /// What [`loader::load`] says.
    pub(super) fn attach(
        wanted: &[&'static Signal],
        options: &Options,
        series: usize,
    ) -> anyhow::Result<Self> {
        let (mut loaded, mut maps) = loader::load(&NODE, wanted, options, |ebpf| {
            // Every cgroup has its slot before the first event.
            let mut maps = Maps::take(ebpf)?;
            maps.sched.assign(Cgroups::new(cgroup2::root()).living())?;
            Ok(maps)
        })?;
        let events = loaded.ebpf.take_map("EVENTS").context("no map EVENTS")?;
        let other: Arc<str> = OTHER_LABEL.into();
        // And again, for those made just before the probe of cgroup_mkdir.
        let cgroups = Cgroups::new(cgroup2::root());
        let room = maps.sched.assign(cgroups.living())?;
        Ok(Self {
            maps,
            events: events.try_into()?,
            cgroups: Arc::new(cgroups),
            devices: Devices::default(),
            listeners: Worker::new("listeners", Listeners::new())
                .context("no thread for a collector")?,
            listen_failures: 0,
            sched: Table::new(series, other.clone()),
            tcp: Table::new(series, (other.clone(), "".into(), "")),
            block: Table::new(series, (other, Op::Other.as_str())),
            entries: [0; 3],
            removed: 0,
            events_lost: 0,
            homeless: 0,
            room,
            loaded,
        })
    }

    /// What is loaded.
    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Its ring buffer.
    pub(super) fn ring(&self) -> &RingBuf<MapData> {
        &self.events
    }

    /// Takes in the events that are there. If some were lost, the cgroups are
    /// read anew.
    ///
    /// # Errors
    /// When the kernel refuses a map.
    pub(super) fn drain(&mut self) -> anyhow::Result<()> {
        self.loaded.flush_diagnostics();
        while let Some(event) = self.events.next() {
            if let Some(removed) = Arc::make_mut(&mut self.cgroups).event(&event) {
                self.removed += 1;
                let unit = unit(&self.cgroups, removed).0;
                if let Some(account) = self.maps.sched.retire(removed)? {
                    self.sched.keep(unit, &account);
                }
            }
        }
        if self.removed > REMOVED {
            // Else their TCP accounts would fill the map until the next scrape.
            self.read_tcp()?;
        }
        for (key, last) in self.maps.tcp.release()? {
            self.tcp.keep(tcp_labels(&self.cgroups, &key).0, &last);
        }
        for (key, last) in self.maps.block.release()? {
            let labels = block_labels(&mut self.devices, key).0;
            self.block.keep(labels, &last);
        }
        let released = self.maps.sched.release()?;
        self.room |= !released.is_empty();
        for (cgroup, late) in released {
            self.sched.keep(unit(&self.cgroups, cgroup).0, &late);
        }
        // Who has no slot may run long after one was given back.
        let homeless = self.loss(Loss::SchedSeries);
        if self.room && homeless != self.homeless {
            self.homeless = homeless;
            self.room = self.maps.sched.assign(self.cgroups.living())?;
        }
        let lost = self.loss(Loss::Event);
        if lost != self.events_lost {
            self.events_lost = lost;
            self.rescan()?;
        }
        Ok(())
    }

    fn rescan(&mut self) -> anyhow::Result<()> {
        Arc::make_mut(&mut self.cgroups).rescan();
        self.room = self.maps.sched.assign(self.cgroups.living())?;
        Ok(())
    }

    fn loss(&self, which: Loss) -> u64 {
        self.maps.losses.of(which).unwrap_or_default()
    }

    /// The families of these signals; `all`: read every account, for what is
    /// told of the maps.
    pub(super) fn families(
        &mut self,
        signals: &[&'static Signal],
        all: bool,
    ) -> anyhow::Result<Vec<Family>> {
        let reads = |kind: fn(&Numbers) -> bool| all || signals.iter().any(|s| kind(&s.numbers));
        let sched = if reads(|n| matches!(n, Numbers::Sched(_))) {
            self.read_sched()?
        } else {
            HashMap::new()
        };
        let tcp = if reads(|n| matches!(n, Numbers::Tcp(_))) {
            self.read_tcp()?
        } else {
            HashMap::new()
        };
        let block = if reads(|n| matches!(n, Numbers::Block(_))) {
            self.read_block()?
        } else {
            HashMap::new()
        };
        Ok(signals
            .iter()
            .filter_map(|signal| {
                Some(match signal.numbers {
                    Numbers::Sched(numbers) => from_accounts(
                        signal,
                        &sched,
                        |unit| vec![unit.clone()],
                        |_, account, emit| numbers(account, emit),
                    ),
                    Numbers::Tcp(numbers) => from_accounts(
                        signal,
                        &tcp,
                        |(unit, interface, family)| {
                            vec![unit.clone(), interface.clone(), (*family).into()]
                        },
                        |_, account, emit| numbers(account, emit),
                    ),
                    Numbers::Block(numbers) => from_accounts(
                        signal,
                        &block,
                        |(device, op)| vec![device.clone(), (*op).into()],
                        |_, account, emit| numbers(account, emit),
                    ),
                    _ => return None,
                })
            })
            .collect())
    }

    /// The names of cgroups.
    pub(super) fn cgroups(&self) -> &Arc<Cgroups> {
        &self.cgroups
    }

    /// Begins to read the listening sockets of all network namespaces.
    pub(super) fn begin_listening(&mut self) {
        if let Some(late) = self.listeners.late() {
            self.listen_failures = late.failures;
        }
        let cgroups = self.cgroups.clone();
        self.listeners.start(move |listeners| {
            if let Err(error) = listeners.read(&|id| unit(&cgroups, id).0) {
                let error = format!("{error:#}");
                tracing::warn!(error, "cannot read listening sockets");
            }
            Listened {
                overflows: listeners.overflows(),
                drops: listeners.drops().clone(),
                failures: listeners.failures(),
            }
        });
    }

    /// Waits for it; `None`: it is left out.
    pub(super) fn finish_listening(&mut self, until: Instant) -> Option<Listened> {
        let listened = self.listeners.finish(until)?;
        self.listen_failures = listened.failures;
        Some(listened)
    }

    /// Whether the reader of listening sockets answers.
    pub(super) fn listening(&self) -> CollectorState {
        self.listeners.state()
    }

    /// What could not be read of listening sockets, as it was last known.
    pub(super) fn listen_failures(&self) -> u64 {
        self.listen_failures
    }

    /// Losses in the kernel, by reason.
    pub(super) fn losses(&self) -> anyhow::Result<Vec<(&'static str, u64)>> {
        let losses = self.maps.losses.read()?.into_iter();
        Ok(losses.map(|(loss, count)| (loss.as_str(), count)).collect())
    }

    /// How full the maps are, as of the last reading.
    pub(super) fn map_states(&self) -> anyhow::Result<Vec<MapState>> {
        let map = |name, entries, capacity: u32, memory| MapState {
            name,
            entries,
            capacity: u64::from(capacity),
            memory,
        };
        let [sched, tcp, block] = self.entries;
        let maps = &self.maps;
        let remembered = |name, places: &Places| {
            let entries = places.entries()?;
            anyhow::Ok(map(name, entries, places.capacity, places.memory))
        };
        Ok(vec![
            map("sched", sched, maps.sched.capacity(), maps.sched.memory()),
            remembered("tasks", &maps.tasks)?,
            map("tcp", tcp, maps.tcp.capacity(), maps.tcp.memory()),
            remembered("sockets", &maps.sockets)?,
            map("block", block, maps.block.capacity(), maps.block.memory()),
        ])
    }

    /// Label sets without series of their own, by subject.
    pub(super) fn folded(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sched", self.sched.folded),
            ("tcp", self.tcp.folded),
            ("block", self.block.folded),
        ]
    }

    /// Cgroups made and removed.
    pub(super) fn cgroup_events(&self) -> [u64; 2] {
        self.cgroups.events
    }

    fn read_sched(&mut self) -> anyhow::Result<HashMap<Arc<str>, Box<Sched>>> {
        let accounts = self.maps.sched.read()?;
        self.entries[0] = accounts.len() as u64 - 1;
        self.learn(accounts.keys().copied())?;
        let mut entries = Vec::with_capacity(accounts.len());
        for (id, account) in accounts {
            let (unit, gone) = unit(&self.cgroups, id);
            if gone {
                // Its event was lost: the rescan found out.
                if let Some(account) = self.maps.sched.retire(id)? {
                    self.sched.keep(unit, &account);
                }
            } else {
                entries.push(Entry {
                    labels: unit,
                    account,
                    gone,
                });
            }
        }
        Ok(self.sched.sum(entries))
    }

    fn read_tcp(&mut self) -> anyhow::Result<HashMap<TcpLabels, Box<Tcp>>> {
        let accounts = self.maps.tcp.read()?;
        self.removed = 0;
        self.entries[1] = accounts.len() as u64;
        self.learn(accounts.keys().map(|key| key.cgroup))?;
        let cgroups = &self.cgroups;
        count_at_slots(&mut self.maps.tcp, &mut self.tcp, accounts, |key| {
            tcp_labels(cgroups, key)
        })
    }

    fn read_block(&mut self) -> anyhow::Result<HashMap<BlockLabels, Box<Block>>> {
        let accounts = self.maps.block.read()?;
        self.entries[2] = accounts.len() as u64;
        let devices = &mut self.devices;
        count_at_slots(&mut self.maps.block, &mut self.block, accounts, |key| {
            block_labels(devices, *key)
        })
    }

    /// Reads the names anew if one of the ids has none: its cgroup was made
    /// before attach and hidden then, or its event was lost.
    fn learn(&mut self, mut ids: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        if ids.any(|id| id != OTHER && !self.cgroups.knows(id)) {
            self.rescan()?;
        }
        Ok(())
    }
}

/// Sums accounts by label, and removes from the map what is gone.
pub(super) fn sum<K, A, L>(
    map: &mut AccountMap<K, A>,
    table: &mut Table<L, A>,
    accounts: HashMap<K, Box<A>>,
    mut labels: impl FnMut(&K) -> (L, bool),
) -> HashMap<L, Box<A>>
where
    K: Copy + Eq + std::hash::Hash + 'static,
    A: Sum,
    L: Clone + Eq + std::hash::Hash,
{
    table.sum(accounts.into_iter().map(|(key, account)| {
        let (labels, gone) = labels(&key);
        let last = if gone { map.remove(key) } else { None };
        Entry {
            labels,
            account: last.unwrap_or(account),
            gone,
        }
    }))
}

/// Sums accounts by label, and takes their slots from those that are gone. What
/// they counted is read as ever until it is released.
fn count_at_slots<K, A, L>(
    map: &mut SlotAccounts<K, A>,
    table: &mut Table<L, A>,
    accounts: HashMap<K, Box<A>>,
    mut labels: impl FnMut(&K) -> (L, bool),
) -> anyhow::Result<HashMap<L, Box<A>>>
where
    K: Copy + Eq + std::hash::Hash + 'static,
    A: Sum,
    L: Clone + Eq + std::hash::Hash,
{
    let mut entries = Vec::with_capacity(accounts.len());
    for (key, account) in accounts {
        let (labels, gone) = labels(&key);
        if gone {
            map.retire(key)?;
        }
        entries.push(Entry {
            labels,
            account,
            gone: false,
        });
    }
    Ok(table.sum(entries))
}

/// The labels of a TCP account, and whether its cgroup is gone.
fn tcp_labels(cgroups: &Cgroups, key: &TcpKey) -> (TcpLabels, bool) {
    let (unit, gone) = unit(cgroups, key.cgroup);
    ((unit, interface(&key.interface).into(), family(key)), gone)
}

/// The labels of a block account, and whether its disk is gone.
fn block_labels(devices: &mut Devices, key: BlockKey) -> (BlockLabels, bool) {
    let op = Op::ALL.get(key.op as usize).unwrap_or(&Op::Other);
    if key == BlockKey::OTHER {
        return ((OTHER_LABEL.into(), op.as_str()), false);
    }
    let (device, gone) = devices.name(key.major(), key.minor());
    ((device, op.as_str()), gone)
}

/// The unit of a cgroup, and whether the cgroup is gone.
pub(super) fn unit(cgroups: &Cgroups, id: u64) -> (Arc<str>, bool) {
    if id == OTHER {
        return (OTHER_LABEL.into(), false);
    }
    cgroups.unit(id)
}

fn family(key: &TcpKey) -> &'static str {
    match key.family {
        2 => "ipv4",
        10 => "ipv6",
        _ => "",
    }
}
