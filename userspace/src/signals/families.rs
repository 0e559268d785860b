//! From accounts to families, as the catalogue's rows say.

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use kldtrace_abi::histogram;
use kldtrace_exporters::model::{Family, Histogram, Series, Value};

use crate::catalogue::Signal;

/// Takes the numbers of one account, one call for each series.
pub struct Emit<'a> {
    signal: &'static Signal,
    labels: &'a [Arc<str>],
    series: &'a mut Vec<Series>,
}

impl Emit<'_> {
    /// A distribution. One without observations is left out: it has nothing
    /// to say, and there are many.
    pub fn histogram(&mut self, more: &[&str], histogram: &histogram::Histogram) {
        if let Some(histogram) = sparse(histogram) {
            self.push(more, Value::Histogram(histogram));
        }
    }

    /// A whole number, zero too: a rate wants the zero before the first.
    pub fn integer(&mut self, more: &[&str], number: u64) {
        self.push(more, Value::Integer(number));
    }

    /// A whole number, left out while it is zero: for wide label sets.
    pub fn unless_zero(&mut self, more: &[&str], number: u64) {
        if number != 0 {
            self.integer(more, number);
        }
    }

    /// Any other number.
    pub fn float(&mut self, more: &[&str], number: f64) {
        self.push(more, Value::Float(number));
    }

    fn push(&mut self, more: &[&str], value: Value) {
        let given = self.labels.iter().cloned();
        let values = given.chain(more.iter().map(|&value| value.into()));
        let labels: Vec<_> = self
            .signal
            .labels
            .iter()
            .map(|&name| Cow::Borrowed(name))
            .zip(values)
            .collect();
        debug_assert_eq!(
            labels.len(),
            self.signal.labels.len(),
            "{}",
            self.signal.name
        );
        self.series.push(Series { labels, value });
    }
}

/// A family without series.
pub fn family(signal: &'static Signal) -> Family {
    Family {
        name: signal.metric.into(),
        help: signal.help.into(),
        kind: signal.kind,
        unit: signal.unit,
        series: Vec::new(),
    }
}

/// The family of a signal whose accounts are kept by label.
pub(super) fn from_accounts<L, A>(
    signal: &'static Signal,
    accounts: &HashMap<L, Box<A>>,
    labels: impl Fn(&L) -> Vec<Arc<str>>,
    numbers: impl Fn(&L, &A, &mut Emit<'_>),
) -> Family {
    let mut family = family(signal);
    for (key, account) in accounts {
        let labels = labels(key);
        let mut emit = Emit {
            signal,
            labels: &labels,
            series: &mut family.series,
        };
        numbers(key, account, &mut emit);
    }
    // A hash map's order changes from run to run; people compare scrapes.
    family.series.sort_by(|a, b| a.labels.cmp(&b.labels));
    family
}

/// The family of a signal that is read at once.
pub(super) fn from_facts<F>(
    signal: &'static Signal,
    facts: &F,
    numbers: fn(&F, &mut Emit<'_>),
) -> Family {
    let mut family = family(signal);
    numbers(
        facts,
        &mut Emit {
            signal,
            labels: &[],
            series: &mut family.series,
        },
    );
    family
}

/// The model's histogram; `None` without observations.
pub fn sparse(histogram: &histogram::Histogram) -> Option<Histogram> {
    let buckets: Vec<(i32, u64)> = histogram
        .slots
        .iter()
        .enumerate()
        .take(histogram::OVERFLOW_SLOT)
        .skip(1)
        .filter(|(_, count)| **count != 0)
        .map(|(slot, count)| (histogram::index_of(slot), *count))
        .collect();
    let sparse = Histogram {
        sum_ns: histogram.sum,
        zero: histogram.slots[0],
        buckets,
        overflow: histogram.slots[histogram::OVERFLOW_SLOT],
        exemplars: Vec::new(),
    };
    (sparse.count() != 0).then_some(sparse)
}
