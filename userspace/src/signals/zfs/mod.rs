//! OpenZFS: from the accounts of its probes, and from what it tells of itself,
//! to families and events.

mod accounts;
mod part;
mod read;
mod reports;
mod slow;
mod taskqs;
mod told;
mod vdevs;
mod words;
mod zvols;

use std::{
    collections::HashMap,
    os::fd::BorrowedFd,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use kldtrace_abi::{
    OTHER,
    histogram::Histogram,
    zfs::{
        FIRST_GENERATION, LogKey, LogWrites, OTHER_DEVICE, OpKey, Operations, StageKey, Vdev,
        VdevKey,
    },
    zfs_report::ReportKey,
    zfs_taskq::TaskqKey,
    zvol::ZvolKey,
};
use kldtrace_exporters::model::{Event, Family};

use self::{
    part::Part,
    read::{LogLabels, OpLabels, Read, StageLabels, VdevLabels},
    reports::Reports,
    slow::Slow,
    taskqs::Taskqs,
    told::Told,
    vdevs::VdevNames,
    words::{op_word, other_name, priority_word, stage_word, type_word},
    zvols::Zvols,
};
pub use read::ZfsRead;
pub use told::at_once;

use super::{
    accounts::SlotAccounts,
    clock::Clock,
    hash::AccountMap,
    maps::Losses,
    module::Module,
    own::MapState,
    table::{OTHER_LABEL, Table},
};
use crate::{
    catalogue::{Numbers, Signal},
    collect::zfs::{
        KSTAT, State, Zfs,
        datasets::{Datasets, Name},
        mounted::Mounted,
        objsets::Objsets,
        txgs,
    },
    kernel::{
        loader::{self, Loaded, Options},
        object::{ObjectFile, ZFS},
    },
};

/// Sums of operations, of none yet. `series`: label sets with series of their own.
fn no_ops(series: usize) -> Table<OpLabels, Operations> {
    Table::new(series, (other_name(), None, ""))
}

/// How often the transaction groups are read at least: a pool remembers a
/// hundred of them.
const FOLLOW_EVERY: Duration = Duration::from_secs(2);

/// The probes while they are attached.
struct Probes {
    loaded: Loaded,
    ops: SlotAccounts<OpKey, Operations, OpLabels>,
    names: vdevs::NameMap,
    events: RingBuf<MapData>,
    /// Events that are taken in at once.
    at_once: usize,
    losses: Losses,
}

/// What is counted of OpenZFS. It outlives the module.
pub(super) struct Collector {
    probes: Option<Probes>,
    /// Of operations; the attached probes' accounts have it.
    ops: Table<OpLabels, Operations>,
    stages: Part<StageKey, Histogram, StageLabels>,
    vdevs: Part<VdevKey, Vdev, VdevLabels>,
    logs: Part<LogKey, LogWrites, LogLabels>,
    zvols: Zvols,
    reports: Reports,
    syncs: Part<u64, Histogram, Arc<str>>,
    taskqs: Taskqs,
    datasets: Datasets,
    mounted: Mounted,
    objsets: Objsets,
    vdev_names: VdevNames,
    read: ZfsRead,
    /// When the transaction groups were last read.
    followed: Option<Instant>,
    /// What was lost in probes that have been let go.
    lost: HashMap<&'static str, u64>,
}

impl Collector {
    /// `series` is the limit of label sets for each table.
    pub(super) fn new(series: usize) -> Self {
        let other: Arc<str> = OTHER_LABEL.into();
        let name = Name {
            pool: other.clone(),
            dataset: other.clone(),
        };
        Self {
            probes: None,
            ops: no_ops(series),
            stages: Part::new(
                "zfs_stages",
                series,
                (name.clone(), OTHER_LABEL, OTHER_LABEL),
            ),
            vdevs: Part::new(
                "zfs_vdevs",
                series,
                (other.clone(), other.clone(), OTHER_LABEL, ""),
            ),
            logs: Part::new("zfs_logs", series, (name, other, "")),
            zvols: Zvols::new(series),
            reports: reports::new(series),
            taskqs: taskqs::new(series),
            syncs: Part::new("zfs_syncs", series, OTHER_LABEL.into()),
            datasets: Datasets::default(),
            mounted: Mounted::default(),
            objsets: Objsets::default(),
            vdev_names: VdevNames::default(),
            read: ZfsRead {
                state: State::default(),
                zfs: Zfs::default(),
                slow: HashMap::new(),
            },
            followed: None,
            lost: HashMap::new(),
        }
    }

    /// Takes in the transaction groups that have finished.
    fn follow(&mut self) {
        self.read.zfs.follow();
        self.followed = Some(Instant::now());
    }

    /// Reads all accounts. `all`: their owners are gone, so nothing stays in
    /// the maps.
    fn read_accounts(&mut self, all: bool) -> anyhow::Result<Read> {
        let Some(probes) = &mut self.probes else {
            return Ok(Read::default());
        };
        self.datasets.read();
        let pools = self.read.zfs.pools();
        self.vdev_names.learn(&mut probes.names)?;

        let ops = probes.ops.keys()?;
        let stages = self.stages.read()?;
        let vdevs = self.vdevs.read()?;
        let logs = self.logs.read()?;
        let syncs = self.syncs.read()?;

        let names = &self.vdev_names;
        let wanted: Vec<_> = logs
            .keys()
            .filter(|key| key.vdev != OTHER)
            .map(|key| (names.of(key.vdev).pool, key.objset))
            .collect();
        self.objsets.want(Path::new(KSTAT), &pools, &wanted);

        let (datasets, objsets) = (&self.datasets, &self.objsets);
        let dataset = |device| {
            if device == OTHER_DEVICE {
                return (other_name(), false);
            }
            let (name, gone) = datasets.name(device);
            (name, gone || all)
        };
        let exported = |pool: &Arc<str>| all || !pools.iter().any(|one| **one == **pool);
        Ok(Read {
            zvols: self.zvols.read(all)?,
            taskqs: taskqs::read(&mut self.taskqs)?,
            reports: reports::read(&mut self.reports, names, exported)?,
            syncs: self.syncs.sum(syncs, |pool| {
                if *pool == OTHER {
                    return (OTHER_LABEL.into(), false);
                }
                let name = names.of(*pool).pool;
                let gone = exported(&name);
                (name, gone)
            }),
            ops: probes.ops.read(ops, |key| {
                let (name, gone) = dataset(key.device());
                let sync = if key.is_sync() { "sync" } else { "async" };
                ((name, key.op(), sync), gone)
            })?,
            stages: self.stages.sum(stages, |key| {
                let (name, gone) = dataset(key.device);
                if key.device == OTHER_DEVICE {
                    return ((name, OTHER_LABEL, OTHER_LABEL), false);
                }
                ((name, op_word(key.op), stage_word(key.stage)), gone)
            }),
            vdevs: self.vdevs.sum(vdevs, |key| {
                let words = (type_word(key.kind), priority_word(key.priority));
                if key.vdev == OTHER {
                    let other: Arc<str> = OTHER_LABEL.into();
                    return ((other.clone(), other, OTHER_LABEL, ""), false);
                }
                let one = names.of(key.vdev);
                let gone = exported(&one.pool);
                ((one.pool, one.vdev, words.0, words.1), gone)
            }),
            logs: self.logs.sum(logs, |key| {
                if key.vdev == OTHER {
                    return ((other_name(), OTHER_LABEL.into(), ""), false);
                }
                let one = names.of(key.vdev);
                let gone = exported(&one.pool);
                let name = Name {
                    dataset: objsets.name(&one.pool, key.objset),
                    pool: one.pool,
                };
                ((name, one.vdev, one.log), gone)
            }),
        })
    }

    fn losses_now(&self) -> Vec<(&'static str, u64)> {
        let probes = self.probes.as_ref();
        let losses = probes.and_then(|probes| probes.losses.read().ok());
        let losses = losses.unwrap_or_default().into_iter();
        losses.map(|(loss, count)| (loss.as_str(), count)).collect()
    }
}

impl Module for Collector {
    fn object(&self) -> &'static ObjectFile {
        &ZFS
    }

    fn attach(&mut self, wanted: &[&'static Signal], options: &Options) -> anyhow::Result<()> {
        let options = Options {
            held: self.mounted.any(),
            ..options.clone()
        };
        let (mut loaded, maps) = loader::load(&ZFS, wanted, &options, |ebpf| {
            Ok((
                SlotAccounts::take(ebpf, "ZFS_OPS", Some(OpKey::NOBODY), no_ops(0))?
                    .with_generation(ebpf, FIRST_GENERATION)?,
                AccountMap::take(ebpf, "ZFS_STAGES", StageKey::OTHER)?,
                AccountMap::take(ebpf, "ZFS_VDEVS", VdevKey::OTHER)?,
                AccountMap::take(ebpf, "ZFS_LOGS", LogKey::OTHER)?,
                AccountMap::take(ebpf, "ZFS_ZVOLS", ZvolKey::OTHER)?,
                AccountMap::take(ebpf, "ZFS_REPORTS", ReportKey::OTHER)?,
                AccountMap::take(ebpf, "ZFS_SYNCS", OTHER)?,
                AccountMap::take(ebpf, "ZFS_TASKQS", TaskqKey::OTHER)?,
            ))
        })?;
        let (ops, stages, vdevs, logs, zvols, reports, syncs, taskqs) = maps;
        self.stages.attach(stages);
        self.vdevs.attach(vdevs);
        self.logs.attach(logs);
        self.zvols.part.attach(zvols);
        self.reports.attach(reports);
        self.syncs.attach(syncs);
        self.taskqs.attach(taskqs);
        let events = loaded.ebpf.take_map("EVENTS").context("no map EVENTS")?;
        self.probes = Some(Probes {
            ops,
            names: vdevs::NameMap::take(&mut loaded.ebpf)?,
            events: events.try_into()?,
            at_once: at_once(options.event_buffer),
            losses: Losses::take(&mut loaded.ebpf)?,
            loaded,
        });
        if let Some(probes) = &mut self.probes {
            probes.ops.exchange(&mut self.ops);
        }
        Ok(())
    }

    fn detach(&mut self) {
        if let Err(error) = self.read_accounts(true) {
            tracing::warn!(
                error = format!("{error:#}"),
                "the last counts of zfs are lost"
            );
        }
        for (reason, count) in self.losses_now() {
            *self.lost.entry(reason).or_default() += count;
        }
        if let Some(mut probes) = self.probes.take() {
            if let Err(error) = probes.ops.close() {
                tracing::warn!(%error, "the last counts of operations of zfs are lost");
            }
            probes.ops.exchange(&mut self.ops);
        }
        self.stages.detach();
        self.vdevs.detach();
        self.logs.detach();
        self.zvols.part.detach();
        self.reports.detach();
        self.syncs.detach();
        self.taskqs.detach();
    }

    fn tend(&mut self) -> anyhow::Result<()> {
        let held = self.mounted.any();
        match &mut self.probes {
            Some(probes) => probes.loaded.hold(held, Mounted::gone),
            None => Ok(()),
        }
    }

    fn changes(&self) -> Option<BorrowedFd<'_>> {
        self.mounted.descriptor()
    }

    fn loaded(&self) -> Option<&Loaded> {
        self.probes.as_ref().map(|probes| &probes.loaded)
    }

    fn ring(&self) -> Option<&RingBuf<MapData>> {
        self.probes.as_ref().map(|probes| &probes.events)
    }

    fn loaded_mut(&mut self) -> Option<&mut Loaded> {
        self.probes.as_mut().map(|probes| &mut probes.loaded)
    }

    fn reads(&self, signal: &Signal) -> bool {
        signal.hooks.is_empty() && matches!(signal.numbers, Numbers::ZfsState(_))
    }

    fn withholds(&self, signal: &Signal) -> Option<String> {
        if matches!(signal.numbers, Numbers::ZfsZvols(_)) {
            return zvols::withheld();
        }
        (signal.name == "zfs.txg_time" && txgs::forgotten()).then(|| {
            format!(
                "OpenZFS keeps no times of transaction groups: echo 100 > {}",
                txgs::HISTORY
            )
        })
    }

    fn drain(&mut self, unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
        // Cgroups that come and go may have us here twenty times a second.
        if self
            .followed
            .is_none_or(|last| last.elapsed() >= FOLLOW_EVERY)
        {
            self.follow();
        }
        let Some(probes) = &mut self.probes else {
            return Ok(Vec::new());
        };
        probes.ops.release()?;
        let told = told::all_there(&mut probes.events, probes.at_once);
        // Only now: each dataset of these has been mounted.
        let datasets = self.datasets.now();
        let clock = Clock::now();
        let mut events = Vec::new();
        let mut named = false;
        for one in told {
            let event = match one {
                Told::Slow(event) => event,
                Told::Report(report) => {
                    if !named || !self.vdev_names.know(report.about.vdev) {
                        self.vdev_names.learn(&mut probes.names)?;
                        named = true;
                    }
                    events.push(reports::event(&report, &self.vdev_names, &clock));
                    continue;
                }
            };
            let slow = Slow {
                event,
                op: op_word(event.op as u16),
                unit: unit(event.cgroup),
                name: datasets.name(event.device),
            };
            *self
                .read
                .slow
                .entry((slow.name.clone(), slow.op))
                .or_default() += 1;
            events.push(slow.event(&clock));
        }
        Ok(events)
    }

    fn families(&mut self, signals: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
        let probed = |signal: &&&'static Signal| !matches!(signal.numbers, Numbers::ZfsState(_));
        let read = if signals.iter().any(|signal| probed(&signal)) {
            self.read_accounts(false)?
        } else {
            Read::default()
        };
        if signals.iter().any(|signal| !probed(&signal)) {
            self.follow();
            self.read.state = self.read.zfs.state();
        }
        let families = signals.iter();
        Ok(families
            .filter_map(|signal| read.family(signal, &self.read))
            .collect())
    }

    fn map_states(&self) -> Vec<MapState> {
        let Some(probes) = &self.probes else {
            return Vec::new();
        };
        let mut maps = vec![probes.ops.state("zfs_ops")];
        maps.extend(self.stages.state());
        maps.extend(self.vdevs.state());
        maps.extend(self.logs.state());
        maps.extend(self.zvols.part.state());
        maps.extend(self.reports.state());
        maps.extend(self.syncs.state());
        maps.extend(self.taskqs.state());
        maps
    }

    fn losses(&self) -> Vec<(&'static str, u64)> {
        let mut losses = self.losses_now();
        losses.extend(self.lost.iter().map(|(reason, count)| (*reason, *count)));
        losses.push(("zfs_txg", self.read.zfs.txgs.lost()));
        losses
    }

    fn folded(&self) -> Vec<(&'static str, u64)> {
        let ops = self.probes.as_ref().map_or(0, |probes| probes.ops.folded());
        let parts = self.stages.folded()
            + self.vdevs.folded()
            + self.logs.folded()
            + self.zvols.part.folded()
            + self.reports.folded()
            + self.syncs.folded()
            + self.taskqs.folded();
        vec![("zfs", ops + parts)]
    }
}
