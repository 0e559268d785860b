//! What exporting costs, by the benchmarks of the crates that do it.

use anyhow::{Context, Result};
use serde_json::Value;

use super::Bench;
use super::row::{Goal, Row};
use crate::sh;

/// Every line that a benchmark prints, round by round.
fn rounds(bench: &Bench, name: &str) -> Result<Vec<Vec<Value>>> {
    let mut rounds = Vec::new();
    for round in 0..bench.rounds {
        bench.say("exporters", round, name)?;
        rounds.push(lines("kldtrace-exporters", name)?);
    }
    Ok(rounds)
}

fn lines(package: &str, name: &str) -> Result<Vec<Value>> {
    let mut command = sh::cargo();
    command.args(["bench", "--quiet", "--package", package, "--bench", name]);
    let text = sh::output(&mut command)?;
    let lines = text.lines().map(serde_json::from_str);
    let lines = lines.collect::<Result<_, _>>();
    lines.with_context(|| format!("the benchmark {name} printed {text}"))
}

/// A number of the line in which all of `wanted` stand, for each round.
fn numbers(rounds: &[Vec<Value>], wanted: &[(&str, Value)], name: &str) -> Result<Vec<f64>> {
    let number = |lines: &Vec<Value>| {
        let is = |line: &&Value| wanted.iter().all(|(name, value)| line[*name] == *value);
        lines.iter().find(is)?[name].as_f64()
    };
    let all = rounds.iter().map(number).collect::<Option<_>>();
    all.with_context(|| format!("the benchmark printed no {name} of {wanted:?}"))
}

/// 20,000 events a second into Loki.
pub fn push(bench: &Bench) -> Result<Vec<Row>> {
    const WHAT: &str = "push of 20,000 events/s";
    let rounds = rounds(bench, "push")?;
    let of = |name: &str| numbers(&rounds, &[("format", "protobuf".into())], name);
    let resident = of("resident_bytes")?.into_iter().map(|bytes| bytes / 1e6);
    let row =
        |what: &str, unit, values| Row::new(&format!("{WHAT}, {what}"), "protobuf", unit, values);
    let cpu = row("CPU time", "% of a core", of("percent_of_a_core")?);
    let memory = row("resident memory", "MB", resident.collect());
    let wire = row("wire", "bytes/event", of("wire_bytes_an_event")?);
    Ok(vec![
        cpu.goal(Goal::AtMost(10.0)),
        memory.goal(Goal::AtMost(40.0)),
        wire.against("its JSON", of("json_bytes_an_event")?)
            .goal(Goal::RatioAtMost(0.25)),
    ])
}

/// A line of the journal on its way into the spool.
pub fn journal(bench: &Bench) -> Result<Vec<Row>> {
    let rounds = rounds(bench, "journal")?;
    let of = |redaction: bool, name: &str| {
        let wanted = [("redaction", redaction.into())];
        numbers(&rounds, &wanted, name)
    };
    let row = |side, values| Row::new("line of the journal, CPU time", side, "us", values);
    Ok(vec![
        row("kldtrace", of(true, "us_a_line")?),
        row("without redaction", of(false, "us_a_line")?),
        row("journalctl", of(true, "journalctl_us_a_line")?),
    ])
}

/// All alert and recording rules on 500 nodes: once, as it takes eight minutes and
/// is of medians already.
pub fn rules(bench: &Bench) -> Result<Vec<Row>> {
    bench.say("rules on 500 nodes", 0, "prometheus")?;
    let round = [lines("kldtrace", "rules")?];
    let of = |name: &str| numbers(&round, &[("nodes", 500.into())], name);
    let what = "all rules once, 500 nodes";
    let cycle = Row::new(what, "prometheus", "ms", of("cycle_ms")?);
    let series = Row::new("the same, series", "prometheus", "series", of("series")?);
    let failures = Row::new("the same, failures", "prometheus", "rules", of("failures")?);
    let missed = Row::new("the same, missed", "prometheus", "cycles", of("missed")?);
    Ok(vec![
        cycle.goal(Goal::AtMost(1000.0)),
        series,
        failures.goal(Goal::AtMost(0.0)),
        missed,
    ])
}

/// Bodies of scrapes by their number of series.
pub fn bodies(bench: &Bench) -> Result<Vec<Row>> {
    let rounds = rounds(bench, "scrape")?;
    let of = |series: u32, format: &str, coding: &str, name: &str| {
        let wanted = [
            ("series", series.into()),
            ("format", format.into()),
            ("coding", coding.into()),
        ];
        numbers(&rounds, &wanted, name)
    };
    let mut rows = Vec::new();
    for (format, coding) in [
        ("protobuf", "identity"),
        ("protobuf", "gzip"),
        ("text", "identity"),
        ("text", "gzip"),
    ] {
        let what = "body of 20,000 histograms, p99";
        let side = format!("{format}, {coding}");
        let row = Row::new(what, &side, "ms", of(20_000, format, coding, "p99_ms")?);
        rows.push(if format == "protobuf" {
            row.goal(Goal::AtMost(25.0))
        } else {
            row
        });
    }
    let size = |name| -> Result<Vec<f64>> {
        let sizes = of(20_000, "protobuf", "identity", name)?.into_iter();
        Ok(sizes.map(|bytes| bytes / 1e6).collect())
    };
    let row = Row::new("the same, size", "protobuf, identity", "MB", size("bytes")?);
    let text = size("bytes_of_text_of_same_resolution")?;
    let row = row.against("text of the same resolution", text);
    rows.push(row.goal(Goal::RatioAtMost(1.0 / 3.0)));
    let a_series = |series: u32| -> Result<Vec<f64>> {
        let times = of(series, "protobuf", "identity", "median_ms")?.into_iter();
        Ok(times.map(|time| time * 1e6 / f64::from(series)).collect())
    };
    for series in [10_000, 50_000] {
        let what = format!("time of one of {series} histograms");
        let row = Row::new(&what, "protobuf, identity", "ns", a_series(series)?);
        rows.push(row.against("of 1,000", a_series(1000)?));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_is_found_in_its_line() {
        let round = || vec![json!({"a": 1, "n": 2.5}), json!({"a": 2, "n": 3})];
        let rounds = [round(), round()];
        let of = |a: i32| numbers(&rounds, &[("a", a.into())], "n").ok();
        assert_eq!(of(2), Some(vec![3.0, 3.0]));
        assert_eq!(of(3), None);
    }
}
