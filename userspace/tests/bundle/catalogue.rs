//! Every metric and label that a rule uses exists.

use std::collections::{BTreeMap, BTreeSet};

use kldtrace::catalogue::{Signal, signals};
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

/// The labels that a series of this name may have.
pub fn labels(metric: &str, recorded: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut labels: BTreeSet<_> = TARGET.map(str::to_owned).into();
    if let Some(of_record) = recorded.get(metric) {
        labels.extend(of_record.iter().cloned());
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

/// Whatever form Prometheus keeps histograms in, the rules have both: each use
/// of one form stands beside one of the other.
///
/// So none records a native histogram, which has no other form. Prometheus 2.42
/// stores a rate of one only by luck: not if its buckets add up, by rounding, to
/// more than its count.
#[test]
fn histograms_are_served_in_both_forms() {
    for (_, rule) in Exported::new(&[]).rules() {
        let used = names(&rule.expr);
        let mut forms = BTreeSet::new();
        for (metric, _) in &used.metrics {
            if let Some((signal, part)) = signal(metric)
                && signal.kind == Kind::Histogram
            {
                forms.insert(part.is_empty());
            }
        }
        match (&rule.alert, &rule.record) {
            (Some(alert), _) => {
                assert!(
                    forms.is_empty(),
                    "{alert}: use a recording rule for histograms"
                );
            }
            (_, record) => {
                assert_ne!(forms.len(), 1, "{record:?}: histograms in one form only");
            }
        }
    }
}
