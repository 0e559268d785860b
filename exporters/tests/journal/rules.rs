//! What is left out, limited and redacted, counted exactly.

use kldtrace_exporters::journal::{Own, filter, rate::Limit, redact};

use super::crafted::{Entry, SECOND, line, now, ship};

fn lines(stored: &[super::double::Stored]) -> Vec<&str> {
    stored.iter().map(|one| &*one.line).collect()
}

#[test]
fn units_identifiers_and_priorities_go_by_the_filter() {
    let start = now();
    let entry = |number: u64, unit: &str, identifier: &str, priority: &str| {
        line(start + number, unit, &number.to_string())
            .with("SYSLOG_IDENTIFIER", identifier)
            .with("PRIORITY", priority)
    };
    let entries = [
        entry(0, "a.service", "x", "6"),
        entry(1, "a.service", "x", "7"),
        entry(2, "b.service", "x", "0"),
        entry(3, "c.service", "x", "6"),
        entry(4, "a.socket", "x", "6"),
        entry(5, "", "x", "6"),
        entry(6, "a.service", "sudo", "6"),
        entry(7, "session-9.scope", "y", "5"),
        entry(8, "", "kernel", "4").with("_TRANSPORT", "kernel"),
    ];
    let list = |patterns: &[&str]| patterns.iter().map(|one| (*one).to_owned()).collect();
    let filter = filter::Settings {
        units: list(&["a.*", "b.service", "session.scope", "kernel"]),
        exclude_units: list(&["*.socket"]),
        identifiers: Vec::new(),
        exclude_identifiers: list(&["su*"]),
        priority: 6,
    };
    let Some((stored, counts)) = ship(&entries, |settings| settings.filter = filter) else {
        return;
    };
    assert_eq!(lines(&stored), ["0", "2", "7", "8"]);
    assert_eq!((counts.shipped, counts.filtered), (4, 5));
}

#[test]
fn a_unit_that_floods_is_held_to_its_rate_and_the_rest_is_counted() {
    let start = now() - 60 * SECOND;
    // 1,000 lines at once, one line a second, and another unit.
    let flood = (0..1000).map(|_| line(start, "flood.service", "flood"));
    let calm = (0..10).map(|second| line(start + second * SECOND, "calm.service", "calm"));
    let again = (1..=5).map(|second| line(start + second * SECOND, "flood.service", "again"));
    let entries: Vec<Entry> = flood.chain(calm).chain(again).collect();
    let limit = Limit {
        per_second: 1,
        burst: 100,
    };
    let Some((stored, counts)) = ship(&entries, |settings| settings.limit = Some(limit)) else {
        return;
    };
    let count = |text: &str| lines(&stored).iter().filter(|one| **one == text).count();
    assert_eq!(
        (count("flood"), count("calm"), count("again")),
        (100, 10, 5)
    );
    assert_eq!((counts.shipped, counts.rate_limited), (115, 900));
    let words = stored.iter().filter(|one| one.line.contains("left out"));
    let told: u64 = words
        .map(|one| one.metadata["lines"].parse::<u64>().unwrap())
        .sum();
    assert_eq!(told, 900);
}

#[test]
fn secrets_do_not_leave_the_node() {
    let start = now();
    let entries = [
        line(start, "a.service", "nothing to hide"),
        line(start + 1, "a.service", "login with password=s3cr3t failed"),
        line(start + 2, "a.service", "customer 4711-22 called"),
        line(start + 3, "a.service", "fine").with("SYSLOG_IDENTIFIER", "token=x api_key=s3cr3t"),
        line(
            start + 4,
            "a.service",
            "Authorization: Bearer s3cr3t for customer 1-2",
        ),
    ];
    let rule = redact::Rule {
        pattern: r"customer \d+-(\d+)".to_owned(),
        replacement: "customer *-${1}".to_owned(),
    };
    let redact = redact::Settings {
        off: Vec::new(),
        rules: vec![rule],
    };
    let Some((stored, counts)) = ship(&entries, |settings| settings.redact = redact) else {
        return;
    };
    let expected = [
        "nothing to hide",
        "login with password=[redacted] failed",
        "customer *-22 called",
        "fine",
        "Authorization: Bearer [redacted] for customer *-2",
    ];
    assert_eq!(lines(&stored), expected);
    assert!(!format!("{stored:?}").contains("s3cr3t"));
    assert_eq!((counts.shipped, counts.redacted), (5, 4));
}

#[test]
fn our_own_lines_are_left_out() {
    let start = now();
    let by = |number: u64, unit: &str, command: &str| {
        line(start + number, unit, &number.to_string()).with("_COMM", command)
    };
    let entries = [
        by(0, "kldtrace.service", "kldtrace"),
        by(1, "kldtrace.service", "sh"),
        by(2, "init.scope", "systemd").with("UNIT", "kldtrace.service"),
        by(3, "kldtrace.service", "kldtrace"),
    ];
    let own = Own {
        unit: "kldtrace.service".to_owned(),
        command: "kldtrace".to_owned(),
    };
    let Some((stored, counts)) = ship(&entries, |settings| settings.own = Some(own)) else {
        return;
    };
    assert_eq!(lines(&stored), ["1", "2"]);
    assert_eq!((counts.shipped, counts.own), (2, 2));
}

#[test]
fn a_clock_that_is_set_back_and_forth_loses_nothing() {
    const HOURS: u64 = 3600 * SECOND;
    let start = now() - 60 * SECOND;
    let times = [start, start - 2 * HOURS, start + 30 * SECOND];
    let entries = times
        .into_iter()
        .zip(["a", "b", "c"])
        .flat_map(|(time, name)| {
            (0..200).map(move |number| line(time + number, "x.service", &format!("{name}{number}")))
        });
    let entries: Vec<_> = entries.collect();
    let limit = Limit {
        per_second: 10,
        burst: 1000,
    };
    let Some((stored, counts)) = ship(&entries, |settings| settings.limit = Some(limit)) else {
        return;
    };
    assert_eq!((counts.shipped, counts.rate_limited), (600, 0));
    assert_eq!((counts.gaps, counts.lost), (0, 0));
    for name in ["a", "b", "c"] {
        let all = lines(&stored);
        let own: Vec<_> = all
            .into_iter()
            .filter(|one| one.starts_with(name))
            .collect();
        let expected: Vec<_> = (0..200).map(|number| format!("{name}{number}")).collect();
        assert_eq!(own, expected);
    }
}
