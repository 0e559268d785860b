//! What is read of OpenZFS, of its probes by label and of itself, and families of
//! it.

use std::{collections::HashMap, sync::Arc};

use kldtrace_abi::{
    histogram::Histogram,
    zfs::{LogWrites, Op, Operations, Vdev},
    zfs_report::Reports as ReportCount,
    zvol::Zvol,
};
use kldtrace_exporters::model::Family;

use super::{reports, words::labels, zvols};
use crate::{
    catalogue::{Numbers, Signal},
    collect::zfs::{State, Zfs, datasets::Name},
    signals::{
        families::{from_accounts, from_facts},
        table::OTHER_LABEL,
    },
};

/// Everything that is read at once of OpenZFS.
pub struct ZfsRead {
    /// Its own tables.
    pub state: State,
    /// Its transaction groups.
    pub zfs: Zfs,
    /// Slow operations by dataset and operation, since the daemon began.
    pub slow: HashMap<(Name, &'static str), u64>,
}

/// Labels of operations: dataset, operation, sync or async.
pub(super) type OpLabels = (Name, Option<Op>, &'static str);
/// Labels of stages: dataset, operation, stage.
pub(super) type StageLabels = (Name, &'static str, &'static str);
/// Labels of vdevs: pool, vdev, type, priority.
pub(super) type VdevLabels = (Arc<str>, Arc<str>, &'static str, &'static str);
/// Labels of intent-log writes: dataset, vdev, kind of log.
pub(super) type LogLabels = (Name, Arc<str>, &'static str);

/// All accounts by label.
#[derive(Default)]
pub(super) struct Read {
    pub(super) ops: HashMap<OpLabels, Box<Operations>>,
    pub(super) stages: HashMap<StageLabels, Box<Histogram>>,
    pub(super) vdevs: HashMap<VdevLabels, Box<Vdev>>,
    pub(super) logs: HashMap<LogLabels, Box<LogWrites>>,
    pub(super) zvols: HashMap<zvols::Labels, Box<Zvol>>,
    pub(super) reports: HashMap<reports::Labels, Box<ReportCount>>,
    pub(super) syncs: HashMap<Arc<str>, Box<Histogram>>,
    pub(super) taskqs: HashMap<Arc<str>, Box<Histogram>>,
}

impl Read {
    /// A signal's family; `facts` are what OpenZFS says itself. `None`: the signal
    /// is not of ZFS.
    pub(super) fn family(&self, signal: &'static Signal, facts: &ZfsRead) -> Option<Family> {
        Some(match signal.numbers {
            Numbers::ZfsOps(numbers) => from_accounts(
                signal,
                &self.ops,
                |(name, op, sync)| {
                    let [pool, dataset] = labels(name);
                    vec![
                        pool,
                        dataset,
                        op.map_or(OTHER_LABEL, Op::as_str).into(),
                        (*sync).into(),
                    ]
                },
                // What found no room may be of any operation.
                |(_, op, _), account, emit| numbers(op.unwrap_or(Op::Read), account, emit),
            ),
            Numbers::ZfsStages(numbers) => from_accounts(
                signal,
                &self.stages,
                |(name, op, stage)| {
                    let [pool, dataset] = labels(name);
                    vec![pool, dataset, (*op).into(), (*stage).into()]
                },
                |_, account, emit| numbers(account, emit),
            ),
            Numbers::ZfsVdevs(numbers) => from_accounts(
                signal,
                &self.vdevs,
                |(pool, vdev, kind, priority)| {
                    vec![
                        pool.clone(),
                        vdev.clone(),
                        (*kind).into(),
                        (*priority).into(),
                    ]
                },
                |_, account, emit| numbers(account, emit),
            ),
            Numbers::ZfsLogs(numbers) => from_accounts(
                signal,
                &self.logs,
                |(name, vdev, log)| {
                    let [pool, dataset] = labels(name);
                    vec![pool, dataset, vdev.clone(), (*log).into()]
                },
                |_, account, emit| numbers(account, emit),
            ),
            Numbers::ZfsZvols(numbers) => from_accounts(
                signal,
                &self.zvols,
                zvols::label_values,
                |_, account, emit| {
                    numbers(account, emit);
                },
            ),
            Numbers::ZfsReports(numbers) => from_accounts(
                signal,
                &self.reports,
                |(pool, vdev, _)| vec![pool.clone(), vdev.clone()],
                |(_, _, class), account, emit| numbers(class, account.count, emit),
            ),
            Numbers::ZfsSyncs(numbers) => from_accounts(
                signal,
                &self.syncs,
                |pool| vec![pool.clone()],
                |_, account, emit| numbers(account, emit),
            ),
            Numbers::ZfsTaskqs(numbers) => from_accounts(
                signal,
                &self.taskqs,
                |queue| vec![queue.clone()],
                |_, account, emit| numbers(account, emit),
            ),
            Numbers::ZfsState(numbers) => from_facts(signal, facts, numbers),
            _ => return None,
        })
    }
}
