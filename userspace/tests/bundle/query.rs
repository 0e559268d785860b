//! The names that a PromQL expression uses. Whether it is PromQL is for
//! promtool to say: this reads names out of what is known to be right.

use std::collections::BTreeSet;

/// Names in an expression.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Each metric, with the labels that its braces match.
    pub metrics: Vec<(String, Vec<String>)>,
    /// Labels of `by`, `on` and the like.
    pub labels: BTreeSet<String>,
}

const LISTS: &[&str] = &[
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// Reads the names of an expression.
pub fn names(expression: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        if first == '"' || first == '`' {
            rest = after_string(rest);
        } else if first.is_ascii_digit() {
            // Numbers and durations: 0.5, 5m.
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_of_name(first) {
            let (name, after) = take_name(rest);
            let after = after.trim_start();
            rest = after;
            if after.starts_with('{') {
                let (labels, after) = matched(after);
                names.metrics.push((name.to_owned(), labels));
                rest = after;
            } else if LISTS.contains(&name) && after.starts_with('(') {
                let (list, after) = after[1..].split_once(')').unwrap();
                let list = list.split(',').map(str::trim).filter(|one| !one.is_empty());
                names.labels.extend(list.map(str::to_owned));
                rest = after;
            } else if name.starts_with("kldtrace") || name == "target_info" {
                names.metrics.push((name.to_owned(), Vec::new()));
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    names
}

/// Labels that a template of an annotation uses.
pub fn labels_of_template(text: &str) -> BTreeSet<String> {
    let uses = text.split("$labels.").skip(1);
    uses.map(|rest| take_name(rest).0.to_owned()).collect()
}

/// Labels that a legend shows: those in `{{label}}`.
pub fn labels_of_legend(text: &str) -> BTreeSet<String> {
    let uses = text.split("{{").skip(1);
    uses.map(|rest| take_name(rest).0.to_owned()).collect()
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn take_name(text: &str) -> (&str, &str) {
    let end = text.find(|c| !is_of_name(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// The rest after a string in double quotes, or in backticks, which have no
/// escapes.
fn after_string(text: &str) -> &str {
    if let Some(raw) = text.strip_prefix('`') {
        return raw.split_once('`').map_or("", |(_, after)| after);
    }
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &text[at + 1..],
            _ => {}
        }
    }
    ""
}

/// The labels between braces, and the rest after them.
fn matched(text: &str) -> (Vec<String>, &str) {
    let mut labels = Vec::new();
    let mut rest = &text[1..];
    while let Some(first) = rest.chars().next() {
        if first == '}' {
            return (labels, &rest[1..]);
        } else if first == '"' || first == '`' {
            rest = after_string(rest);
        } else if is_of_name(first) {
            let (name, after) = take_name(rest);
            labels.push(name.to_owned());
            rest = after;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    (labels, "")
}

#[test]
fn names_are_read() {
    let read = names(
        "sum by (node, le) (rate(kldtrace_a_bucket{job=\"k}\", x!~`y\\`}[5m])) > 0.5e3\n\
         and on (node) kldtrace:b:c unless up{job=\"kldtrace_not\"} offset 15m",
    );
    let metric = |name: &str, labels: &[&str]| {
        (
            name.to_owned(),
            labels.iter().map(|&label| label.to_owned()).collect(),
        )
    };
    assert_eq!(
        read.metrics,
        [
            metric("kldtrace_a_bucket", &["job", "x"]),
            metric("kldtrace:b:c", &[]),
            metric("up", &["job"]),
        ]
    );
    assert_eq!(read.labels, ["le", "node"].map(str::to_owned).into());
    let used = labels_of_template("{{ or $labels.node $labels.instance }} {{ $value }}");
    assert_eq!(used, ["instance", "node"].map(str::to_owned).into());
}
