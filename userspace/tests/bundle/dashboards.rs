//! Every metric and label in a dashboard exists, and every signal is in one.

use std::collections::{BTreeMap, BTreeSet};

use kldtrace::{bundle::dashboards, catalogue::signals};
use serde_json::Value;

use super::{
    catalogue::{TARGET, labels, recorded, signal},
    files::Exported,
    query::{labels_of_legend, names},
};

/// Labels of the series that Prometheus itself keeps of alerts.
const OF_ALERTS: [&str; 5] = ["alertname", "alertstate", "severity", "team", "node"];

/// A query of a panel.
struct Query {
    place: String,
    text: String,
    legend: String,
}

/// All panels of a dashboard, those in closed rows, too.
fn panels(model: &Value) -> Vec<&Value> {
    let rows = model["panels"].as_array().unwrap();
    let below = rows.iter().filter_map(|row| row["panels"].as_array());
    rows.iter().chain(below.flatten()).collect()
}

/// Queries for Prometheus, with something for each of Grafana's variables.
fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for source in dashboards::ALL {
        let model: Value = serde_json::from_str(source.text).unwrap();
        for panel in panels(&model) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                if target["datasource"]["type"] != "prometheus" {
                    continue;
                }
                let place = format!("{}: {}", source.name, panel["title"]);
                for form in ["seconds", "seconds_bucket"] {
                    queries.push(Query {
                        place: place.clone(),
                        text: fill(target["expr"].as_str().unwrap(), form),
                        legend: target["legendFormat"].as_str().unwrap_or("").to_owned(),
                    });
                }
            }
        }
    }
    assert!(queries.len() > 300, "{} queries", queries.len());
    queries
}

fn fill(text: &str, histograms: &str) -> String {
    let mut filled = text
        .replace("$__rate_interval", "5m")
        .replace("$__range", "1h")
        .replace("${histograms}", histograms);
    for name in ["node", "plane", "pool", "dataset", "unit"] {
        filled = filled.replace(&format!("${{{name}:regex}}"), "x");
    }
    assert!(!filled.contains('$'), "{filled}");
    filled
}

fn of_rules() -> BTreeMap<String, BTreeSet<String>> {
    recorded(&Exported::new(&[]).rules())
}

#[test]
fn every_name_exists() {
    let recorded = of_rules();
    for Query {
        place,
        text,
        legend,
    } in queries()
    {
        let used = names(&text);
        let mut known: BTreeSet<_> = TARGET.map(str::to_owned).into();
        // Native histograms have none, and summing by it does no harm.
        known.insert("le".to_owned());
        for (metric, matched) in &used.metrics {
            let has = if metric == "ALERTS" {
                OF_ALERTS.map(str::to_owned).into()
            } else {
                labels(metric, &recorded)
            };
            for label in matched {
                assert!(has.contains(label), "{place}: {metric} has no {label}");
            }
            let ours = metric != "ALERTS" && !recorded.contains_key(metric);
            assert!(
                !ours || matched.iter().any(|label| label == "job"),
                "{place}: {metric} is anybody's"
            );
            known.extend(has);
        }
        for label in used.labels.into_iter().chain(labels_of_legend(&legend)) {
            assert!(known.contains(&label), "{place}: nothing has {label}");
        }
    }
}

/// A metric with a label that people can choose is matched by what they chose.
#[test]
fn no_panel_ignores_what_was_chosen() {
    for source in dashboards::ALL {
        let model: Value = serde_json::from_str(source.text).unwrap();
        let variables = model["templating"]["list"].as_array().unwrap();
        let offered: Vec<_> = variables
            .iter()
            .filter(|one| one["type"] == "query" && one["name"] != "histograms")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        for panel in panels(&model) {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let text = target["expr"].as_str().unwrap();
                for (metric, matched) in names(&fill(text, "seconds")).metrics {
                    let Some((signal, _)) = signal(&metric) else {
                        continue;
                    };
                    for name in &offered {
                        let has = *name == "node" || signal.labels.contains(name);
                        assert!(
                            !has || matched.iter().any(|label| label == name),
                            "{}: {}: {metric} is not matched by {name}",
                            source.name,
                            panel["title"]
                        );
                    }
                }
            }
        }
    }
}

/// A signal without a panel is one that nobody sees.
#[test]
fn every_signal_has_a_panel() {
    let mut shown = BTreeSet::new();
    for query in queries() {
        for (metric, _) in names(&query.text).metrics {
            if let Some((signal, _)) = signal(&metric) {
                shown.insert(signal.name);
            }
        }
    }
    let missing: Vec<_> = signals()
        .map(|signal| signal.name)
        .filter(|name| !shown.contains(name))
        .collect();
    assert!(missing.is_empty(), "in no dashboard: {missing:?}");
}
