//! Where the time of ZFS operations went: from two snapshots and the slow
//! operations between them to an explanation for each group of operations.
//!
//! A quantile of a stage is not the stage of the quantile: the longest commits
//! need not be in the longest operations. So an explanation has one of two
//! bases, and says which. Where the slow operations at or above the quantile
//! are known one by one, it is the middle one of them: its stages were measured
//! in it, and add up to it. Else it is all operations together: sums of stages
//! add up as well, and say where the time went, but not that of the slow ones.

mod quantile;
#[cfg(test)]
pub(crate) mod tests;
mod words;

use std::sync::Arc;

use kldtrace_abi::zfs::Stage;
use kldtrace_exporters::model::{Event, Family, Field, Histogram};
use serde::Serialize;

pub use self::quantile::Quantile;
use self::quantile::{Tail, tail};
use crate::{
    catalogue,
    quantile::{count, merge},
    view::group::{Filter, Labels, Row, Selection, Shown, rows},
};

/// The labels that operations can be told apart by.
pub const LABELS: [&str; 3] = ["pool", "dataset", "op"];

/// A stage with less of the time than this has no evidence of its own.
const WORTH_A_WORD: f64 = 0.1;

/// The signals that are read.
pub const SIGNALS: [&str; 9] = [
    "zfs.op_latency",
    "zfs.mmap_read_latency",
    "zfs.stage_latency",
    "zfs.log_queue_latency",
    "zfs.log_device_latency",
    "zfs.vdev_queue_latency",
    "zfs.vdev_device_latency",
    "zfs.txg_time",
    "zfs.slow_operations",
];

/// What is to be explained.
#[derive(Clone, Debug)]
pub struct Request {
    /// Labels that tell operations apart, each of [`LABELS`].
    pub by: Vec<String>,
    /// Only these operations.
    pub filters: Vec<Filter>,
    /// How slow the operations are that are looked at.
    pub quantile: Quantile,
}

impl Request {
    /// Checks labels, and takes dataset and operation where none is named.
    ///
    /// # Errors
    /// The sentence for the person who wrote another label.
    pub fn new(
        mut by: Vec<String>,
        filters: Vec<Filter>,
        quantile: Quantile,
    ) -> Result<Self, String> {
        let filtered = filters.iter().map(Filter::label);
        for label in filtered.chain(by.iter().map(String::as_str)) {
            if !LABELS.contains(&label) {
                return Err(format!(
                    "--explain tells operations apart by {}, not by {label:?}: stages and vdevs \
                     are in each explanation",
                    LABELS.join(", ")
                ));
            }
        }
        if by.is_empty() {
            by = vec!["dataset".to_owned(), "op".to_owned()];
        }
        Ok(Self {
            by,
            filters,
            quantile,
        })
    }
}

/// What happened to one group of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What tells it from others.
    pub labels: Labels,
    /// Operations.
    pub count: u64,
    /// Time of all of them, in nanoseconds.
    pub sum_ns: u64,
    /// The quantile in seconds.
    pub quantile: f64,
    /// Operations at or above the quantile, as far as buckets can tell.
    pub tail: u64,
    /// What `stages` are of.
    pub basis: Basis,
    /// Where the time went, the most first; those without any are left out.
    pub stages: Vec<Share>,
    /// What is known of what the stages waited for.
    pub evidence: Vec<Evidence>,
}

/// What an explanation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// One operation: the middle one of those at or above the quantile that
    /// are known one by one.
    Operation {
        /// Its event.
        event: u64,
        /// What it took.
        seconds: f64,
        /// How many are known.
        known: u64,
    },
    /// All operations together.
    Sums,
    /// Stages are not measured.
    None,
}

/// A stage's part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    /// The stage, as the label `stage` has it.
    pub stage: &'static str,
    /// Its time: in the one operation, or in all of them together.
    pub seconds: f64,
    /// The same as a part of the whole, from 0 to 1.
    pub share: f64,
}

/// What was measured elsewhere at the same time, and belongs to a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Evidence {
    /// Intent-log writes of the datasets.
    LogWrites(Vdevs),
    /// Reads that somebody waited for, of the pool.
    Reads(Vdevs),
    /// Writes of transaction groups, of the pool.
    Writes(Vdevs),
    /// Transaction groups that were synced in the pool.
    Syncs {
        /// How many.
        count: u64,
        /// Their quantile in seconds.
        seconds: f64,
    },
}

/// Requests to vdevs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Vdevs {
    /// The vdev that took the most time.
    pub vdev: Arc<str>,
    /// Whether it is a log device; `None`: that was not asked.
    pub slog: Option<bool>,
    /// Requests to it.
    pub count: u64,
    /// The quantile of their time in the queue, in seconds.
    pub queue: f64,
    /// The quantile of their time in the device, in seconds.
    pub device: f64,
    /// How many other vdevs had some.
    pub others: usize,
}

/// Explains what happened between the snapshots `before` and `after`, the
/// group that took the most time first. `events` are those in between.
pub fn explain(
    request: &Request,
    before: &[Family],
    after: &[Family],
    events: &[Event],
) -> Vec<Group> {
    let read = Read {
        request,
        before,
        after,
    };
    let by: Vec<_> = request.by.iter().map(String::as_str).collect();
    let operations = read.rows(&["zfs.op_latency", "zfs.mmap_read_latency"], &by);
    let with_stage: Vec<_> = by.iter().copied().chain(["stage"]).collect();
    let stages = read.has("zfs.stage_latency").then(|| {
        let stages = read.rows(&["zfs.stage_latency"], &with_stage);
        stages.collect::<Vec<_>>()
    });

    let mut groups: Vec<(Labels, Histogram)> = Vec::new();
    for row in operations {
        match groups.iter_mut().find(|(labels, _)| *labels == row.labels) {
            Some((_, histogram)) => merge(histogram, &row.histogram),
            None => groups.push((row.labels, row.histogram)),
        }
    }
    groups.sort_by_key(|(_, histogram)| std::cmp::Reverse(histogram.sum_ns));
    groups
        .into_iter()
        .map(|(labels, histogram)| {
            let tail = tail(&histogram, request.quantile);
            let slow = slow_ones(&labels, request, &tail, events);
            let (basis, stages) = match (middle_of(&slow, &tail), &stages) {
                (Some(event), _) => of_event(event, slow.len() as u64),
                (None, Some(stages)) => (Basis::Sums, of_sums(&labels, &histogram, stages)),
                (None, None) => (Basis::None, Vec::new()),
            };
            Group {
                count: count(&histogram),
                sum_ns: histogram.sum_ns,
                quantile: tail.value,
                tail: tail.count,
                evidence: evidence(&read, &labels, &stages),
                labels,
                basis,
                stages,
            }
        })
        .collect()
}

/// Two snapshots, and what of them is asked for.
struct Read<'a> {
    request: &'a Request,
    before: &'a [Family],
    after: &'a [Family],
}

impl Read<'_> {
    fn has(&self, signal: &str) -> bool {
        let metric = catalogue::find(signal).map(|signal| signal.metric);
        self.after
            .iter()
            .any(|family| Some(&*family.name) == metric)
    }

    /// What these signals counted in between, told apart by `by`, under those
    /// filters whose labels they have.
    fn rows(&self, signals: &[&str], by: &[&str]) -> impl Iterator<Item = Row> {
        let shown: Vec<_> = signals
            .iter()
            .filter_map(|name| catalogue::find(name))
            .map(|signal| Shown {
                signal: signal.name,
                metric: signal.metric,
                help: signal.help,
                labels: signal.labels,
                by: &[],
            })
            .collect();
        let known = |filter: &&Filter| shown.iter().all(|one| one.labels.contains(&filter.label()));
        let selection = Selection {
            filters: self.request.filters.iter().filter(known).cloned().collect(),
            by: by.iter().map(ToString::to_string).collect(),
        };
        rows(&shown, &selection, self.before, self.after).into_iter()
    }
}

fn value<'a>(labels: &'a Labels, name: &str) -> Option<&'a Arc<str>> {
    let mut labels = labels.iter();
    labels
        .find(|(label, _)| label == name)
        .map(|(_, value)| value)
}

/// Whether something of these labels may belong to a group: it has the same
/// values where both have a label, and the group's pool.
fn belongs(group: &Labels, other: &Labels) -> bool {
    let pool = value(group, "pool").cloned().or_else(|| {
        let dataset = value(group, "dataset")?;
        dataset.split(['/', '@']).next().map(Into::into)
    });
    let same = |name: &str, wanted: &Arc<str>| value(other, name).is_none_or(|one| one == wanted);
    pool.is_none_or(|pool| same("pool", &pool))
        && group.iter().all(|(name, wanted)| same(name, wanted))
}

/// The slow operations of a group that are at or above the quantile, the
/// fastest first.
fn slow_ones<'a>(
    labels: &Labels,
    request: &Request,
    tail: &Tail,
    events: &'a [Event],
) -> Vec<&'a Event> {
    let mine = |event: &&Event| {
        let label = |name: &str| {
            let mut of_event = event.labels.iter();
            of_event
                .find(|(label, _)| label == name)
                .map(|(_, value)| value)
        };
        let admitted = |filter: &Filter| {
            let mut same = request
                .filters
                .iter()
                .filter(|one| one.label() == filter.label());
            label(filter.label()).is_some_and(|value| same.any(|one| one.admits(value)))
        };
        event.subject == "zfs"
            && event.kind == "slow_operation"
            && labels
                .iter()
                .all(|(name, value)| label(name) == Some(value))
            && request.filters.iter().all(admitted)
    };
    let mut slow: Vec<_> = events
        .iter()
        .filter(mine)
        .filter(|event| seconds(event, "duration_seconds") > tail.above)
        .collect();
    slow.sort_by(|a, b| {
        let [a, b] = [a, b].map(|event| seconds(event, "duration_seconds"));
        a.total_cmp(&b)
    });
    slow
}

/// The middle one, if enough of those at or above the quantile are known that
/// it speaks for them: where the threshold of slow operations is above the
/// quantile, only the slowest are.
fn middle_of<'a>(slow: &[&'a Event], tail: &Tail) -> Option<&'a Event> {
    let enough = slow.len() as u64 >= tail.count.div_ceil(2);
    (enough && !slow.is_empty()).then(|| slow[(slow.len() - 1) / 2])
}

fn seconds(event: &Event, field: &str) -> f64 {
    let mut fields = event.fields.iter();
    match fields.find(|(name, _)| name == field) {
        Some((_, Field::Float(seconds))) => *seconds,
        // Whole seconds come back from JSON as numbers without a point.
        Some((_, Field::Integer(seconds))) => *seconds as f64,
        _ => 0.0,
    }
}

fn of_event(event: &Event, known: u64) -> (Basis, Vec<Share>) {
    let total = seconds(event, "duration_seconds");
    let stages = Stage::ALL.map(|stage| {
        let stage = stage.as_str();
        (stage, seconds(event, &format!("{stage}_seconds")))
    });
    let basis = Basis::Operation {
        event: event.id,
        seconds: total,
        known,
    };
    (basis, shares(stages, total))
}

/// Operations that never left the CPU are in no stage; all of their time was
/// on it.
fn of_sums(labels: &Labels, all: &Histogram, stages: &[Row]) -> Vec<Share> {
    let mut sums = Stage::ALL.map(|stage| (stage.as_str(), 0_u64));
    for row in stages {
        let mut rest = row.labels.iter().filter(|(name, _)| name != "stage");
        if !rest.all(|(name, one)| value(labels, name) == Some(one)) {
            continue;
        }
        let stage = value(&row.labels, "stage");
        if let Some((_, sum)) = sums
            .iter_mut()
            .find(|(name, _)| stage.is_some_and(|stage| **stage == **name))
        {
            *sum = sum.saturating_add(row.histogram.sum_ns);
        }
    }
    let measured = sums
        .iter()
        .fold(0, |sum: u64, (_, ns)| sum.saturating_add(*ns));
    if let Some((_, cpu)) = sums
        .iter_mut()
        .find(|(name, _)| *name == Stage::Cpu.as_str())
    {
        *cpu = cpu.saturating_add(all.sum_ns.saturating_sub(measured));
    }
    // The maps are read one after the other: an operation may have ended
    // between them.
    let total = all.sum_ns.max(measured) as f64 / 1e9;
    shares(sums.map(|(stage, ns)| (stage, ns as f64 / 1e9)), total)
}

fn shares(stages: impl IntoIterator<Item = (&'static str, f64)>, total: f64) -> Vec<Share> {
    let mut shares: Vec<_> = stages
        .into_iter()
        .filter(|(_, seconds)| seconds.is_finite() && *seconds > 0.0)
        .map(|(stage, seconds)| Share {
            stage,
            seconds,
            share: if total > 0.0 { seconds / total } else { 0.0 },
        })
        .collect();
    shares.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    shares
}

/// What was measured of what the greater stages waited for.
fn evidence(read: &Read<'_>, labels: &Labels, stages: &[Share]) -> Vec<Evidence> {
    let mut evidence = Vec::new();
    let is = |share: &Share, stage: Stage| share.stage == stage.as_str();
    for share in stages.iter().filter(|share| share.share >= WORTH_A_WORD) {
        if is(share, Stage::ZilCommit) {
            let signals = ["zfs.log_queue_latency", "zfs.log_device_latency"];
            let by = ["pool", "dataset", "vdev", "log"];
            evidence.extend(vdevs(read, labels, signals, &by, |_| true).map(Evidence::LogWrites));
        } else if is(share, Stage::ArcMiss) {
            let reads = vdevs_of_pool(read, labels, "sync_read");
            evidence.extend(reads.map(Evidence::Reads));
        } else if is(share, Stage::Throttle) || is(share, Stage::TxgWait) {
            let writes = vdevs_of_pool(read, labels, "async_write").map(Evidence::Writes);
            for one in syncs(read, labels).into_iter().chain(writes) {
                if !evidence.contains(&one) {
                    evidence.push(one);
                }
            }
        }
    }
    evidence
}

fn vdevs_of_pool(read: &Read<'_>, labels: &Labels, priority: &str) -> Option<Vdevs> {
    let signals = ["zfs.vdev_queue_latency", "zfs.vdev_device_latency"];
    let by = ["pool", "vdev", "priority"];
    vdevs(read, labels, signals, &by, |row| {
        value(row, "priority").is_some_and(|one| &**one == priority)
    })
}

/// The vdev on which a group's requests took the most time in queue and device.
fn vdevs(
    read: &Read<'_>,
    labels: &Labels,
    signals: [&str; 2],
    by: &[&str],
    wanted: impl Fn(&Labels) -> bool,
) -> Option<Vdevs> {
    struct One {
        vdev: Arc<str>,
        slog: Option<bool>,
        times: [Histogram; 2],
    }
    let mut all: Vec<One> = Vec::new();
    for (at, signal) in signals.iter().enumerate() {
        for row in read.rows(&[signal], by) {
            let Some(vdev) = value(&row.labels, "vdev") else {
                continue;
            };
            if !wanted(&row.labels) || !belongs(labels, &row.labels) {
                continue;
            }
            let place = all.iter().position(|one| one.vdev == *vdev);
            let place = place.unwrap_or_else(|| {
                all.push(One {
                    vdev: vdev.clone(),
                    slog: value(&row.labels, "log").map(|log| &**log == "slog"),
                    times: Default::default(),
                });
                all.len() - 1
            });
            merge(&mut all[place].times[at], &row.histogram);
        }
    }
    let sum = |one: &One| one.times[0].sum_ns.saturating_add(one.times[1].sum_ns);
    let others = all.len().saturating_sub(1);
    let most = all.into_iter().max_by_key(sum)?;
    let [queue, device] = most
        .times
        .each_ref()
        .map(|times| tail(times, read.request.quantile).value);
    Some(Vdevs {
        vdev: most.vdev,
        slog: most.slog,
        count: count(&most.times[1]).max(count(&most.times[0])),
        queue,
        device,
        others,
    })
}

/// The transaction groups that were synced meanwhile.
fn syncs(read: &Read<'_>, labels: &Labels) -> Option<Evidence> {
    let mut all = Histogram::default();
    for row in read.rows(&["zfs.txg_time"], &["pool", "phase"]) {
        let sync = value(&row.labels, "phase").is_some_and(|phase| &**phase == "sync");
        if sync && belongs(labels, &row.labels) {
            merge(&mut all, &row.histogram);
        }
    }
    let count = count(&all);
    (count > 0).then(|| Evidence::Syncs {
        count,
        seconds: tail(&all, read.request.quantile).value,
    })
}
