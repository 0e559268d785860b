//! From two snapshots to rows: which series, put together how, and what
//! happened in them.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

use kldtrace_exporters::model::{Family, Histogram, Series, Value};

use crate::{
    quantile::{count, merge, since},
    words::{did_you_mean, matches},
};

/// A histogram signal to show, as the catalogue has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Short name: `sched.runqueue_latency`.
    pub signal: &'static str,
    /// Name of its family.
    pub metric: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// The labels that tell its rows apart where nobody says which.
    pub by: &'static [&'static str],
}

impl Shown {
    fn has(&self, label: &str) -> bool {
        self.labels.contains(&label)
    }
}

/// One `--filter LABEL=VALUE`; in the value, `*` stands for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    label: String,
    pattern: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((label, pattern)) if !label.is_empty() => Ok(Self {
                label: label.to_owned(),
                pattern: pattern.to_owned(),
            }),
            _ => Err(format!(
                "{text:?} is not LABEL=VALUE, such as \"device=sda\" or \"unit=*.service\""
            )),
        }
    }
}

impl Filter {
    /// The label that it looks at.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Whether it lets a value through.
    pub fn admits(&self, value: &str) -> bool {
        matches(&self.pattern, value)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.label, self.pattern)
    }
}

/// Which series are shown, and by what they are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A series is shown if, for each label named here, one of that label's
    /// filters matches; a series without the label is not shown.
    pub filters: Vec<Filter>,
    /// Labels that tell rows apart, in order; none: those of [`Shown::by`].
    pub by: Vec<String>,
}

impl Selection {
    /// Checks that each label is one of a signal of `shown`.
    ///
    /// # Errors
    /// The sentence for the person who wrote the label, with what they may
    /// have meant.
    pub fn check(&self, shown: &[Shown]) -> Result<(), String> {
        let known: Vec<&str> = shown
            .iter()
            .flat_map(|signal| signal.labels)
            .copied()
            .collect();
        let used = self.filters.iter().map(|filter| &filter.label);
        for label in used.chain(&self.by) {
            if known.contains(&label.as_str()) {
                continue;
            }
            let hint = did_you_mean(label, known.iter().copied());
            let mut names = known.clone();
            names.sort_unstable();
            names.dedup();
            return Err(format!(
                "unknown label {label:?}{hint}: the labels are {}",
                names.join(", ")
            ));
        }
        Ok(())
    }

    /// Parts `shown` into the signals that have the labels that are asked for
    /// and those to leave out. Where no signal has all labels of `by`, those
    /// that have any of them are shown.
    ///
    /// # Errors
    /// As [`Self::check`], and when no signal has all labels of the filters.
    pub fn part(&self, shown: &[Shown]) -> Result<(Vec<Shown>, Vec<Shown>), String> {
        self.check(shown)?;
        let filtered = |one: &Shown| self.filters.iter().all(|filter| one.has(&filter.label));
        let all = |one: &Shown| filtered(one) && self.by.iter().all(|label| one.has(label));
        let any = |one: &Shown| filtered(one) && self.by.iter().any(|label| one.has(label));
        let parted = if shown.iter().any(all) {
            shown.iter().partition(|one| all(one))
        } else if shown.iter().any(any) {
            shown.iter().partition(|one| any(one))
        } else {
            let labels = self.filters.iter().map(|filter| filter.label.as_str());
            let labels: Vec<_> = labels.chain(self.by.iter().map(String::as_str)).collect();
            return Err(format!(
                "no signal has these labels together: {}",
                labels.join(", ")
            ));
        };
        Ok(parted)
    }

    /// The labels that tell a signal's rows apart, in order.
    pub fn by_of(&self, shown: &Shown) -> Vec<&str> {
        if self.by.is_empty() {
            return shown.by.to_vec();
        }
        self.by.iter().map(String::as_str).collect()
    }

    fn admits(&self, series: &Series) -> bool {
        let matched = |wanted: &Filter| {
            let mut same = self.filters.iter().filter(|f| f.label == wanted.label);
            value(series, &wanted.label)
                .is_some_and(|value| same.any(|filter| matches(&filter.pattern, value)))
        };
        self.filters.iter().all(matched)
    }

    /// The labels that a series is grouped by, as far as it has them.
    fn group(&self, shown: &Shown, series: &Series) -> Labels {
        let by = self.by_of(shown).into_iter();
        by.filter_map(|label| Some((label.to_owned(), value(series, label)?.clone())))
            .collect()
    }
}

fn value<'a>(series: &'a Series, label: &str) -> Option<&'a Arc<str>> {
    let mut labels = series.labels.iter();
    labels
        .find(|(name, _)| name == label)
        .map(|(_, value)| value)
}

/// Names and values of labels.
pub type Labels = Vec<(String, Arc<str>)>;

/// What one group of one signal did.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The signal.
    pub shown: Shown,
    /// The labels that tell this group from the others, in the order of `by`.
    pub labels: Labels,
    /// Its durations.
    pub histogram: Histogram,
}

/// What happened between the snapshots `before` and `after`: a row for each
/// group of each signal in which something did.
///
/// Signals come in the order of `shown`. Within a signal, the rows with the
/// most time in sum come first: whoever looks for where the time went finds
/// it on top, and a group with one slow outlier does not displace one that is
/// slow all the time. Equal sums are ordered by label values.
pub fn rows(
    shown: &[Shown],
    selection: &Selection,
    before: &[Family],
    after: &[Family],
) -> Vec<Row> {
    let mut rows = Vec::new();
    for signal in shown {
        let old: HashMap<_, _> = histograms(before, signal)
            .map(|(series, histogram)| (&series.labels, histogram))
            .collect();
        for (series, histogram) in histograms(after, signal) {
            if !selection.admits(series) {
                continue;
            }
            let new = old
                .get(&series.labels)
                .map_or_else(|| histogram.clone(), |old| since(histogram, old));
            rows.push(Row {
                shown: *signal,
                labels: selection.group(signal, series),
                histogram: new,
            });
        }
    }
    together(shown, rows)
}

/// `rows` with those of the same group put together, the empty ones left out,
/// in the order of [`rows`].
pub fn together(shown: &[Shown], rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let mut groups: HashMap<(&str, Labels), Row> = HashMap::new();
    for row in rows {
        if count(&row.histogram) == 0 {
            continue;
        }
        groups
            .entry((row.shown.signal, row.labels.clone()))
            .and_modify(|group| merge(&mut group.histogram, &row.histogram))
            .or_insert(row);
    }
    let place = |row: &Row| shown.iter().position(|signal| *signal == row.shown);
    let mut rows: Vec<_> = groups.into_values().collect();
    rows.sort_by(|a, b| {
        place(a)
            .cmp(&place(b))
            .then(b.histogram.sum_ns.cmp(&a.histogram.sum_ns))
            .then_with(|| a.labels.cmp(&b.labels))
    });
    rows
}

/// All of `rows` as one histogram.
pub fn total<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Histogram {
    let mut total = Histogram::default();
    for row in rows {
        merge(&mut total, &row.histogram);
    }
    total
}

/// The series of `signal`'s family with their histograms.
fn histograms<'a>(
    families: &'a [Family],
    signal: &Shown,
) -> impl Iterator<Item = (&'a Series, &'a Histogram)> {
    let metric = signal.metric;
    let named = families.iter().filter(move |family| family.name == metric);
    named
        .flat_map(|family| &family.series)
        .filter_map(|series| match &series.value {
            Value::Histogram(histogram) => Some((series, histogram)),
            Value::Integer(_) | Value::Float(_) => None,
        })
}
