//! What is made of signals against the signals of the same moment, added up by another way.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use kldtrace::catalogue::digests::{DIGESTS, Digest, Only, What};
use kldtrace_exporters::model::{Family, Histogram, Series, Value};

type Labels = BTreeMap<String, String>;

fn labels(series: &Series, kept: &[&str]) -> Labels {
    let labels = series.labels.iter();
    let labels = labels.filter(|(name, _)| kept.contains(&&**name));
    labels
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .collect()
}

/// What a digest is made of, by the labels that are kept.
fn sources<'a>(families: &'a [Family], digest: &Digest) -> BTreeMap<Labels, Vec<&'a Value>> {
    let family = families
        .iter()
        .find(|one| one.name == digest.signal().metric);
    let mut sources: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for series in &family.expect("the signal is there").series {
        let label = |name: &str| labels(series, &[name]).remove(name);
        let counts = match digest.only {
            Only::All => true,
            Only::Is(name, values) => values.contains(&&*label(name).unwrap()),
            Only::IsNot(name, values) => !values.contains(&&*label(name).unwrap()),
        };
        if counts {
            let kept = labels(series, digest.labels);
            sources.entry(kept).or_default().push(&series.value);
        }
    }
    sources
}

/// How many are longer than a bound, of buckets whose upper bound is known.
fn longer(histograms: &[&Histogram], seconds: f64) -> u64 {
    let of = |histogram: &&Histogram| {
        let buckets = histogram.buckets.iter();
        let longer = buckets.filter(|(index, _)| Histogram::upper_bound(*index) > seconds);
        longer.map(|(_, count)| count).sum::<u64>() + histogram.overflow
    };
    histograms.iter().map(of).sum()
}

fn integer(value: &Value) -> u64 {
    match value {
        Value::Integer(number) => *number,
        other => panic!("no whole number: {other:?}"),
    }
}

/// A time.
pub fn seconds(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        other => panic!("no time: {other:?}"),
    }
}

/// The sum of times.
fn took(sources: &[&Value]) -> f64 {
    sources.iter().map(|source| seconds(source)).sum()
}

fn counted(sources: &[&Value]) -> u64 {
    let counts = sources.iter().map(|source| match source {
        Value::Histogram(histogram) => histogram.count(),
        // Only the time is known.
        Value::Float(_) => 0,
        Value::Integer(count) => *count,
    });
    counts.sum()
}

fn long_ago(times: &[&Value], age: Duration) -> bool {
    let [time] = times else {
        panic!("more than one time: {times:?}")
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    seconds(time) + age.as_secs_f64() < now.as_secs_f64()
}

/// Compares each family that is made with what it is made of; says how many series were. All that
/// is counted must have come within the windows.
pub fn compare(families: &[Family]) -> BTreeMap<&'static str, usize> {
    let mut compared = BTreeMap::new();
    for digest in DIGESTS {
        if !families
            .iter()
            .any(|one| one.name == digest.signal().metric)
        {
            continue;
        }
        let sources = sources(families, digest);
        for made in digest.makes {
            let family = families.iter().find(|one| one.name == made.metric).unwrap();
            // Of what has happened, some series tell only where something has.
            let silent = |sources: &Vec<&Value>| {
                matches!(
                    made.what,
                    What::Recent(_) | What::PerSecond(_) | What::AtOnce(_)
                ) && counted(sources) == 0
                    || matches!(made.what, What::LongerAgo(age) if !long_ago(sources, age))
            };
            let expected = sources.values().filter(|sources| !silent(sources)).count();
            // What came before the first reading is not of a window.
            let earlier = digest.was_counted_before() && made.what.window().is_some();
            if earlier {
                assert!(family.series.len() <= expected, "{}", made.metric);
            } else {
                assert_eq!(family.series.len(), expected, "{}", made.metric);
            }
            for series in &family.series {
                let sources = &sources[&labels(series, digest.labels)];
                let count = counted(sources);
                let histograms: Vec<_> = sources
                    .iter()
                    .filter_map(|source| match source {
                        Value::Histogram(histogram) => Some(histogram),
                        _ => None,
                    })
                    .collect();
                let got = &series.value;
                match made.what {
                    What::Recent(_) if earlier => assert!(integer(got) <= count),
                    What::Count | What::Recent(_) => assert_eq!(integer(got), count),
                    What::Mean(_) => {
                        let ns: u64 = histograms.iter().map(|one| one.sum_ns).sum();
                        let mean = ns as f64 / count as f64 / 1e9;
                        assert!((seconds(got) - mean).abs() <= 1e-9 * mean);
                    }
                    What::Misses(_) => {
                        let over = labels(series, &["over"]).remove("over").unwrap();
                        // Spelled with four digits, and bounds are 9 % apart.
                        let over = over.parse::<f64>().unwrap() * 1.001;
                        assert_eq!(integer(got), longer(&histograms, over));
                    }
                    What::Time => assert!((seconds(got) - took(sources)).abs() < 1e-6),
                    What::LongerAgo(_) => assert_eq!(got, sources[0]),
                    What::PerSecond(_) | What::AtOnce(_) => assert!(seconds(got) > 0.0),
                    What::Quantile(per_mille, _) => {
                        let got = seconds(got);
                        let beyond = |seconds| longer(&histograms, seconds) as f64;
                        let may = count as f64 * f64::from(1000 - per_mille) / 1000.0;
                        // No bucket is wider than 2^(1/8); it lies in the middle of one.
                        let (below, above) = (got * 0.95, got * 1.05);
                        assert!(beyond(above) <= may && beyond(below) > may, "{got} {may}");
                    }
                }
                *compared.entry(made.metric).or_default() += 1;
            }
        }
    }
    compared
}

/// The value of the one series that has these labels.
pub fn one(families: &[Family], metric: &str, wanted: &[(&str, &str)]) -> Value {
    let family = families.iter().find(|one| one.name == metric);
    let is = |series: &&Series| {
        wanted.iter().all(|(name, value)| {
            let has = series.labels.iter().find(|(label, _)| label == name);
            has.is_some_and(|(_, has)| **has == **value)
        })
    };
    let series = family.map(|family| family.series.iter().filter(is).collect::<Vec<_>>());
    match series.as_deref() {
        Some([series]) => series.value.clone(),
        other => panic!("{metric} of {wanted:?}: {other:?}"),
    }
}
