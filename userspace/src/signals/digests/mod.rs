//! From histograms and counters to the families of [`DIGESTS`].
//!
//! Sums over series must not go backwards when one of them leaves, as that of a program that is
//! detached does: a counter that shrinks has started anew for Prometheus, which would count all that
//! is left once more. So what each series has gained is added up. What a series leaves to `other`, as
//! that of a dataset that is gone does in the end, is not gained there.

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use kldtrace_exporters::model::{Family, Histogram, Kind, Series, Value};

use super::table::OTHER_LABEL;
use crate::{
    catalogue::{
        Signal,
        digests::{DIGESTS, Digest, Made, OVER, Objective, What, Window},
    },
    config::Objectives,
    quantile::{count, longer_than, merge, quantile, since},
};

/// Values of labels, in the order of the catalogue.
type Labels = Vec<Arc<str>>;

/// Snapshots of a window. The oldest is at most this much older than the window is long.
const STEPS: u32 = 5;

/// What is known of all digests.
pub(super) struct Digests {
    objectives: Objectives,
    states: Vec<State>,
}

impl Digests {
    /// The counters of what is digested are at 0.
    pub fn new(objectives: Objectives) -> Self {
        let now = Instant::now();
        Self {
            objectives,
            states: DIGESTS
                .iter()
                .map(|digest| State::new(digest, now))
                .collect(),
        }
    }

    /// Goes on with other objectives.
    pub fn follow(&mut self, objectives: Objectives) {
        self.objectives = objectives;
    }

    /// The digests of those families that are there.
    pub fn of(&mut self, families: &[Family], now: Instant) -> Vec<Family> {
        let mut digests = Vec::new();
        for state in &mut self.states {
            // A collector that does not answer has no families; its sums are kept.
            let is = |family: &&Family| family.name == state.signal.metric;
            let Some(family) = families.iter().find(is) else {
                continue;
            };
            let made = state.digest.makes.iter();
            if state.signal.kind == Kind::Gauge {
                digests.extend(made.map(|made| longer_ago(state.digest, made, family)));
                continue;
            }
            state.take(family);
            digests.extend(made.map(|made| state.make(made, &self.objectives, now)));
            if let Some(window) = state.window {
                state.keep(time(&self.objectives, window), now);
            }
        }
        digests
    }
}

/// What is known of one.
struct State {
    digest: &'static Digest,
    /// What it is made of.
    signal: &'static Signal,
    /// Each series that counts, as it was last.
    last: HashMap<Labels, Histogram>,
    /// By the labels that are kept.
    totals: BTreeMap<Labels, Histogram>,
    /// Whether it was read before.
    begun: bool,
    /// The one window of all that is made; `None`: nothing looks back.
    window: Option<Window>,
    /// Totals of before, the oldest first.
    before: VecDeque<(Instant, BTreeMap<Labels, Histogram>)>,
}

impl State {
    fn new(digest: &'static Digest, now: Instant) -> Self {
        let mut windows = digest.makes.iter().filter_map(|made| made.what.window());
        Self {
            digest,
            signal: digest.signal(),
            last: HashMap::new(),
            totals: BTreeMap::new(),
            begun: !digest.was_counted_before(),
            window: windows.next(),
            before: VecDeque::from([(now, BTreeMap::new())]),
        }
    }

    /// Adds what the series have gained. Totals that no series belongs to any more are dropped, as
    /// the series were.
    fn take(&mut self, family: &Family) {
        let mut last = HashMap::with_capacity(self.last.len());
        let mut totals = BTreeMap::new();
        let mut rests = Vec::new();
        for series in &family.series {
            let mut labels = series.labels.iter();
            if !labels.all(|(name, value)| self.digest.counts(name, value)) {
                continue;
            }
            let now = match &series.value {
                Value::Histogram(histogram) => Cow::Borrowed(histogram),
                Value::Integer(count) => Cow::Owned(Histogram {
                    zero: *count,
                    ..Histogram::default()
                }),
                Value::Float(seconds) => {
                    let time = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
                    Cow::Owned(Histogram {
                        sum_ns: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
                        ..Histogram::default()
                    })
                }
            };
            let whole: Labels = series
                .labels
                .iter()
                .map(|(_, value)| value.clone())
                .collect();
            let kept = self.kept(series);
            if whole.iter().any(|value| &**value == OTHER_LABEL) {
                rests.push((self.last.remove(&whole), whole, kept, now));
                continue;
            }
            let total = totals
                .entry(kept)
                .or_insert_with_key(|kept| self.totals.remove(kept).unwrap_or_default());
            // Most have gained nothing, and are neither copied nor added.
            let latest = match self.last.remove(&whole) {
                Some(before) if before == *now => before,
                before => {
                    merge(total, &self.gain(&now, before.as_ref()));
                    now.into_owned()
                }
            };
            last.insert(whole, latest);
        }
        // What is left of `self.last` has gone to one of these, where it is nothing new.
        for (before, whole, kept, now) in rests {
            let total = totals
                .entry(kept)
                .or_insert_with_key(|kept| self.totals.remove(kept).unwrap_or_default());
            let mut moved = Histogram::default();
            for (_, left) in self.last.iter().filter(|(left, _)| takes_in(&whole, left)) {
                merge(&mut moved, left);
            }
            merge(total, &since(&self.gain(&now, before.as_ref()), &moved));
            last.insert(whole, now.into_owned());
        }
        self.begun = true;
        self.last = last;
        self.totals = totals;
    }

    /// What a series has gained since it was looked at.
    fn gain(&self, now: &Histogram, before: Option<&Histogram>) -> Histogram {
        match before {
            Some(before) => since(now, before),
            None if self.begun => now.clone(),
            None => Histogram::default(),
        }
    }

    fn kept(&self, series: &Series) -> Labels {
        let names = self.digest.labels.iter();
        let values = names.filter_map(|name| series.labels.iter().find(|(label, _)| label == name));
        values.map(|(_, value)| value.clone()).collect()
    }

    fn make(&self, made: &'static Made, objectives: &Objectives, now: Instant) -> Family {
        let gained = |values, window| self.gained(values, time(objectives, window), now);
        let mut family = family(self.digest, made);
        for (values, total) in &self.totals {
            let names = self.digest.labels.iter().map(|&name| Cow::Borrowed(name));
            let mut labels: Vec<_> = names.zip(values.iter().cloned()).collect();
            let value = match made.what {
                What::Count => Value::Integer(count(total)),
                What::Time => Value::Float(total.sum_seconds()),
                What::Misses(objective) => {
                    let index = bucket(of(objectives, objective));
                    labels.push((OVER.into(), spelled(Histogram::upper_bound(index)).into()));
                    Value::Integer(longer_than(total, index))
                }
                What::Recent(window) => match count(&gained(values, window).0) {
                    0 => continue,
                    count => Value::Integer(count),
                },
                What::PerSecond(window) => match gained(values, window) {
                    (gained, _) if count(&gained) == 0 => continue,
                    (gained, time) => Value::Float(count(&gained) as f64 / time.as_secs_f64()),
                },
                What::AtOnce(window) => match gained(values, window) {
                    (gained, _) if gained.sum_ns == 0 => continue,
                    (gained, time) => Value::Float(gained.sum_seconds() / time.as_secs_f64()),
                },
                What::Mean(window) => match gained(values, window).0 {
                    gained if count(&gained) == 0 => continue,
                    gained => Value::Float(gained.sum_seconds() / count(&gained) as f64),
                },
                What::Quantile(per_mille, window) => {
                    match quantile(&gained(values, window).0, per_mille) {
                        Some(seconds) => Value::Float(seconds),
                        None => continue,
                    }
                }
                What::LongerAgo(_) => unreachable!("{} is no gauge", self.digest.of),
            };
            family.series.push(Series { labels, value });
        }
        family
    }

    /// What a total has gained in a window, and how long that really is.
    fn gained(&self, values: &Labels, window: Duration, now: Instant) -> (Histogram, Duration) {
        let age = |at: Instant| now.saturating_duration_since(at);
        let near = |(at, _): &&(Instant, _)| age(*at) <= window + window / STEPS;
        let before = self.before.iter().find(near).or_else(|| self.before.back());
        let total = self.totals.get(values).cloned().unwrap_or_default();
        let Some((at, before)) = before else {
            return (total, window);
        };
        let gained = match before.get(values) {
            Some(before) => since(&total, before),
            None => total,
        };
        // A second: of less there is no rate.
        (gained, age(*at).max(Duration::from_secs(1)))
    }

    /// Remembers the totals now and then, and forgets those that nobody looks back to.
    fn keep(&mut self, window: Duration, now: Instant) {
        let age = |at: Instant| now.saturating_duration_since(at);
        let step = window / STEPS;
        // The newest stays, however old: between it and now nothing was told.
        let old = |(at, _): &(Instant, _)| age(*at) > window + step;
        while self.before.len() > 1 && self.before.front().is_some_and(old) {
            self.before.pop_front();
        }
        let newest = self.before.back();
        if newest.is_none_or(|(at, _)| age(*at) >= step) {
            self.before.push_back((now, self.totals.clone()));
        }
    }
}

/// Whether a series is where those go that have none of their own any more, and one of these labels
/// would: of what they do not share it has `other`, or nothing.
fn takes_in(rest: &Labels, left: &Labels) -> bool {
    let mut pairs = rest.iter().zip(left);
    pairs.all(|(rest, left)| rest == left || &**rest == OTHER_LABEL || rest.is_empty())
}

fn family(digest: &Digest, made: &Made) -> Family {
    Family {
        name: made.metric.into(),
        help: made.help.into(),
        kind: made.kind(),
        unit: digest.unit_of(made),
        series: Vec::new(),
    }
}

/// Of times since 1970 those that are longer ago than what is made says.
fn longer_ago(digest: &Digest, made: &Made, times: &Family) -> Family {
    let mut family = family(digest, made);
    let What::LongerAgo(age) = made.what else {
        unreachable!("{} is a gauge", digest.of)
    };
    // A clock that was never set is in 1970: nothing is long ago.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let before = now.saturating_sub(age).as_secs_f64();
    let old = |series: &&Series| matches!(series.value, Value::Float(time) if time < before);
    family.series = times.series.iter().filter(old).cloned().collect();
    family
}

fn time(objectives: &Objectives, window: Window) -> Duration {
    match window {
        Window::Usual => objectives.look_back,
        Window::Trouble => objectives.trouble,
        Window::Minutes(minutes) => Duration::from_mins(minutes),
    }
}

fn of(objectives: &Objectives, objective: Objective) -> Duration {
    match objective {
        Objective::ZfsOperation => objectives.zfs_operation,
        Objective::TcpConnect => objectives.tcp_connect,
    }
}

/// The first bucket whose upper bound is at least this long.
fn bucket(objective: Duration) -> i32 {
    let index = (objective.as_secs_f64().log2() * 8.0).ceil() as i32;
    index.clamp(Histogram::FIRST_INDEX, Histogram::LAST_INDEX)
}

/// Seconds with four digits that count: 0.125, 0.1487.
fn spelled(seconds: f64) -> String {
    let digits = 3 - (seconds.log10().floor() as i32);
    let scale = 10_f64.powi(digits);
    format!("{}", (seconds * scale).round() / scale)
}
