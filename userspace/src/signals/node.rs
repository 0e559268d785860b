//! The kernel proper: scheduler, TCP and block accounts, cgroups, listeners.

use std::{collections::HashMap, sync::Arc, time::Instant};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use kldtrace_abi::{
    block::{Block, BlockKey, Op},
    loss::Loss,
    sched::Sched,
    tcp::{Tcp, TcpKey},
};
use kldtrace_exporters::model::Family;

use super::{
    cgroups::Cgroups,
    devices::{Devices, interface},
    families::from_accounts,
    hash::AccountMap,
    maps::{BlockLabels, Maps, Sum, TcpLabels},
    own::{CollectorState, Listened, MapState},
    table::{Entry, Table},
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
            let mut maps = Maps::take(ebpf, series)?;
            maps.sched.assign(Cgroups::new(cgroup2::root()).living())?;
            Ok(maps)
        })?;
        let events = loaded.ebpf.take_map("EVENTS").context("no map EVENTS")?;
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
                let unit = self.cgroups.unit(removed).0;
                self.maps.sched.retire(removed, unit)?;
            }
        }
        if self.removed > REMOVED {
            // Else their TCP accounts would fill the map until the next scrape.
            self.read_tcp()?;
        }
        self.maps.tcp.release()?;
        self.maps.block.release()?;
        self.room |= self.maps.sched.release()?;
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
        let sched = reads(|n| matches!(n, Numbers::Sched(_))).then(|| self.read_sched());
        let sched = sched.transpose()?.unwrap_or_default();
        let tcp = reads(|n| matches!(n, Numbers::Tcp(_))).then(|| self.read_tcp());
        let tcp = tcp.transpose()?.unwrap_or_default();
        let block = reads(|n| matches!(n, Numbers::Block(_))).then(|| self.read_block());
        let block = block.transpose()?.unwrap_or_default();
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
            if let Err(error) = listeners.read(&|id| cgroups.unit(id).0) {
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
        let maps = &self.maps;
        Ok(vec![
            maps.sched.state("sched"),
            maps.tasks.state("tasks")?,
            maps.tcp.state("tcp"),
            maps.sockets.state("sockets")?,
            maps.block.state("block"),
        ])
    }

    /// Label sets without series of their own, by subject.
    pub(super) fn folded(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("sched", self.maps.sched.folded()),
            ("tcp", self.maps.tcp.folded()),
            ("block", self.maps.block.folded()),
        ]
    }

    /// Cgroups made and removed.
    pub(super) fn cgroup_events(&self) -> [u64; 2] {
        self.cgroups.events
    }

    fn read_sched(&mut self) -> anyhow::Result<HashMap<Arc<str>, Box<Sched>>> {
        let keys = self.maps.sched.keys()?;
        self.learn(keys.values().copied())?;
        Ok(self.maps.sched.read(keys, |id| self.cgroups.unit(id))?)
    }

    fn read_tcp(&mut self) -> anyhow::Result<HashMap<TcpLabels, Box<Tcp>>> {
        let keys = self.maps.tcp.keys()?;
        self.removed = 0;
        self.learn(keys.values().map(|key| key.cgroup))?;
        let labels = |key| tcp_labels(&self.cgroups, &key);
        Ok(self.maps.tcp.read(keys, labels)?)
    }

    fn read_block(&mut self) -> anyhow::Result<HashMap<BlockLabels, Box<Block>>> {
        let keys = self.maps.block.keys()?;
        let labels = |key| block_labels(&mut self.devices, key);
        Ok(self.maps.block.read(keys, labels)?)
    }

    /// Reads the names anew if one of the ids has none: its cgroup was made
    /// before attach and hidden then, or its event was lost.
    fn learn(&mut self, mut ids: impl Iterator<Item = u64>) -> anyhow::Result<()> {
        if ids.any(|id| !self.cgroups.knows(id)) {
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

/// The labels of a TCP account, and whether its cgroup is gone.
fn tcp_labels(cgroups: &Cgroups, key: &TcpKey) -> (TcpLabels, bool) {
    let (unit, gone) = cgroups.unit(key.cgroup);
    ((unit, interface(&key.interface).into(), family(key)), gone)
}

/// The labels of a block account, and whether its disk is gone.
fn block_labels(devices: &mut Devices, key: BlockKey) -> (BlockLabels, bool) {
    let op = Op::ALL.get(key.op as usize).unwrap_or(&Op::Other);
    let (device, gone) = devices.name(key.major(), key.minor());
    ((device, op.as_str()), gone)
}

fn family(key: &TcpKey) -> &'static str {
    match key.family {
        2 => "ipv4",
        10 => "ipv6",
        _ => "",
    }
}
