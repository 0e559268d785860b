//! Which event tells more of which duration in a histogram.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use kldtrace_exporters::model::{Event, Exemplar, Family, Field, Value};

use super::events::Store;
use crate::catalogue::{self, EVENTS, EventKind, Signal};

/// Values of a series' labels, in the order of the catalogue.
type Labels = Vec<Arc<str>>;

/// Gives each histogram that events tell of the newest of them for each factor
/// of two, the newest first.
pub(super) fn attach(families: &mut [Family], events: &Store) {
    for row in EVENTS {
        let Some((name, field)) = row.exemplar else {
            continue;
        };
        let Some(signal) = catalogue::find(name) else {
            continue;
        };
        let Some(family) = families.iter_mut().find(|f| f.name == signal.metric) else {
            continue;
        };
        let mut told = collect(row, signal, field, events);
        for series in &mut family.series {
            if let Value::Histogram(histogram) = &mut series.value {
                let labels: Labels = series
                    .labels
                    .iter()
                    .map(|(_, value)| value.clone())
                    .collect();
                histogram.exemplars = told.remove(&labels).unwrap_or_default();
            }
        }
    }
}

fn collect(
    row: &EventKind,
    signal: &Signal,
    field: &str,
    events: &Store,
) -> HashMap<Labels, Vec<Exemplar>> {
    let mut told: HashMap<Labels, Vec<Exemplar>> = HashMap::new();
    let mut octaves = HashSet::new();
    for event in events.newest_first() {
        if event.kind != row.kind || event.subject != row.subject.as_str() {
            continue;
        }
        let Some((labels, exemplar)) = exemplar(signal, field, event) else {
            continue;
        };
        // The bucket between two powers of two that text formats have.
        let octave = exemplar.seconds.log2().ceil() as i32;
        if octaves.insert((labels.clone(), octave)) {
            told.entry(labels).or_default().push(exemplar);
        }
    }
    told
}

fn exemplar(signal: &Signal, field: &str, event: &Event) -> Option<(Labels, Exemplar)> {
    let label = |name: &&str| {
        let (_, value) = event.labels.iter().find(|(label, _)| label == name)?;
        Some(value.clone())
    };
    let labels = signal.labels.iter().map(label).collect::<Option<_>>()?;
    let (_, value) = event.fields.iter().find(|(name, _)| name == field)?;
    let Field::Float(seconds) = *value else {
        return None;
    };
    let exemplar = Exemplar {
        event: event.id,
        seconds,
        time_ns: event.time_ns,
    };
    Some((labels, exemplar))
}

#[cfg(test)]
mod tests {
    use kldtrace_exporters::model::{Histogram, Series};

    use super::*;
    use crate::signals::families::family;

    fn slow(dataset: &str, op: &str, seconds: f64) -> Event {
        let label = |name: &'static str, value: &str| (name.into(), Arc::from(value));
        Event {
            id: 0,
            time_ns: 77,
            subject: "zfs".into(),
            kind: "slow_operation".into(),
            labels: vec![
                label("pool", "tank"),
                label("dataset", dataset),
                label("op", op),
                label("sync", "sync"),
                label("unit", "a.service"),
            ],
            fields: vec![
                ("duration_seconds".into(), Field::Float(seconds)),
                ("other_wait_seconds".into(), Field::Float(9.0)),
            ],
            message: String::new(),
        }
    }

    fn exemplars(events: &[Event]) -> Vec<Vec<(u64, f64)>> {
        let signal = catalogue::find("zfs.op_latency").unwrap();
        let mut family = family(signal);
        for (dataset, op) in [("tank/a", "read"), ("tank/a", "write"), ("tank/b", "read")] {
            let values = ["tank", dataset, op, "sync"];
            let names = signal.labels.iter().map(|name| (*name).into());
            family.series.push(Series {
                labels: names.zip(values.map(Arc::from)).collect(),
                value: Value::Histogram(Histogram::default()),
            });
        }
        let mut store = Store::new(100);
        for event in events {
            store.push(event.clone());
        }
        let mut families = [family];
        attach(&mut families, &store);
        let of = |series: &Series| match &series.value {
            Value::Histogram(histogram) => {
                let exemplars = histogram.exemplars.iter();
                exemplars.map(|one| (one.event, one.seconds)).collect()
            }
            other => panic!("{other:?}"),
        };
        families[0].series.iter().map(of).collect()
    }

    #[test]
    fn each_series_has_the_newest_of_each_factor_of_two() {
        let found = exemplars(&[
            slow("tank/a", "read", 0.15),
            slow("tank/a", "read", 0.25),
            slow("tank/b", "read", 0.2),
            slow("tank/a", "read", 0.2),
            slow("tank/a", "read", 0.26),
            slow("tank/c", "read", 0.3),
        ]);
        // 0.25 is the end of its bucket, as `le` includes it.
        let expected = vec![vec![(5, 0.26), (4, 0.2)], vec![], vec![(3, 0.2)]];
        assert_eq!(found, expected);
    }

    #[test]
    fn other_events_tell_nothing() {
        let mut other = slow("tank/a", "read", 0.2);
        other.kind = "something".into();
        let mut unlabelled = slow("tank/a", "read", 0.2);
        unlabelled.labels.pop();
        unlabelled.labels.pop();
        let mut untimed = slow("tank/a", "read", 0.2);
        untimed.fields.clear();
        let found = exemplars(&[other, unlabelled, untimed]);
        assert!(found.iter().all(Vec::is_empty), "{found:?}");
    }

    #[test]
    fn rows_name_a_histogram_whose_labels_the_event_has() {
        for row in EVENTS {
            let Some((name, field)) = row.exemplar else {
                continue;
            };
            let signal = catalogue::find(name).unwrap();
            assert_eq!(signal.kind, kldtrace_exporters::model::Kind::Histogram);
            assert!(signal.labels.iter().all(|label| row.labels.contains(label)));
            assert!(row.fields.contains(&field), "{field}");
        }
    }
}
