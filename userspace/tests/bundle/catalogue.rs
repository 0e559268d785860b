//! Every metric and label that a rule uses exists.

use std::collections::{BTreeMap, BTreeSet};

use kldtrace::catalogue::{Exported as Family, Signal, exported, signals};
use kldtrace_exporters::model::Kind;

use super::{
    files::{Exported, Rule},
    query::{labels_of_template, names},
};

/// Labels that Prometheus gives to all that it scrapes.
pub const TARGET: [&str; 3] = ["job", "instance", "node"];
/// A label that only `--match` can have brought in.
const MARK: &str = "only_by_match";

/// The signal of a metric, and what follows the signal's own name.
pub fn signal(metric: &str) -> Option<(&'static Signal, &str)> {
    signals().find_map(|signal| {
        let name = signal.exported_name();
        let part = metric.strip_prefix(&name)?;
        let parts: &[&str] = match signal.kind {
            Kind::Histogram => &["", "_bucket", "_count", "_sum"],
            _ => &[""],
        };
        parts.contains(&part).then_some((signal, part))
    })
}

/// The digests of histograms.
fn digests() -> impl Iterator<Item = Family> {
    exported().filter(|family| family.metric != family.signal.metric)
}

/// The labels of a digest; `None`: it is none.
pub fn digest(metric: &str) -> Option<Vec<&'static str>> {
    let found = digests().find(|family| family.name() == metric);
    found.map(|family| family.labels)
}

/// The labels that a series of this name may have.
pub fn labels(metric: &str, recorded: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut labels: BTreeSet<_> = TARGET.map(str::to_owned).into();
    if let Some(of_record) = recorded.get(metric) {
        labels.extend(of_record.iter().cloned());
    } else if let Some(of_digest) = digest(metric) {
        labels.extend(of_digest.iter().map(|&label| label.to_owned()));
    } else if metric != "up" {
        let (signal, part) = signal(metric)
            .unwrap_or_else(|| panic!("{metric} is neither in the catalogue nor recorded"));
        labels.extend(signal.labels.iter().map(|&label| label.to_owned()));
        if part == "_bucket" {
            labels.insert("le".to_owned());
        }
    }
    labels
}

/// What each recording rule's series have: what it sums by, or all there is.
pub fn recorded(rules: &[(String, Rule)]) -> BTreeMap<String, BTreeSet<String>> {
    let mut recorded = BTreeMap::new();
    for (_, rule) in rules {
        let Some(record) = &rule.record else { continue };
        let used = names(&rule.expr);
        let mut has = used.labels.clone();
        if !rule.expr.contains(" by (") {
            let of_metrics = used.metrics.iter().map(|(name, _)| labels(name, &recorded));
            has.extend(of_metrics.flatten());
        }
        has.remove("le");
        assert!(
            recorded.insert(record.clone(), has).is_none(),
            "{record} twice"
        );
    }
    recorded
}

#[test]
fn every_name_exists() {
    let exported = Exported::new(&["--match", &format!("{MARK}=\"x\"")]);
    let rules = exported.rules();
    let recorded = recorded(&rules);
    for (_, rule) in &rules {
        let what = rule.alert.as_ref().or(rule.record.as_ref()).unwrap();
        let used = names(&rule.expr);
        let mut known = BTreeSet::new();
        for (metric, matched) in &used.metrics {
            let mut has = labels(metric, &recorded);
            known.extend(has.iter().cloned());
            has.insert(MARK.to_owned());
            for label in matched {
                assert!(has.contains(label), "{what}: {metric} has no label {label}");
            }
            assert!(
                recorded.contains_key(metric) || matched.iter().any(|label| label == MARK),
                "{what}: {metric} lacks ${{match}}"
            );
        }
        for label in &used.labels {
            assert!(
                known.contains(label),
                "{what}: nothing has the label {label}"
            );
        }
        for text in rule.annotations.values() {
            for label in labels_of_template(text) {
                let target = TARGET.contains(&label.as_str());
                assert!(
                    target || known.contains(&label),
                    "{what}: no label {label} to show"
                );
            }
        }
    }
}

/// No rule takes a histogram: that is what digests are for. It would be most of what rules cost
/// where there are many nodes, and Prometheus 2.42 stores a rate of a native one only by luck: not
/// if its buckets add up, by rounding, to more than its count.
#[test]
fn rules_take_no_histograms() {
    for (_, rule) in Exported::new(&[]).rules() {
        for (metric, _) in &names(&rule.expr).metrics {
            if let Some((signal, _)) = signal(metric) {
                let what = rule.alert.as_ref().or(rule.record.as_ref());
                assert_ne!(signal.kind, Kind::Histogram, "{what:?}: {metric}");
            }
        }
    }
}

/// A digest that nobody asks for costs for nothing.
#[test]
fn every_digest_is_used() {
    let rules = Exported::new(&[]).rules();
    let used: BTreeSet<_> = rules
        .iter()
        .flat_map(|(_, rule)| names(&rule.expr).metrics)
        .map(|(metric, _)| metric)
        .collect();
    for digest in digests() {
        let name = digest.name();
        assert!(used.contains(&name), "no rule uses {name}");
    }
}
