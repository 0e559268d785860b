//! Every alert has a runbook, and its commands are commands.

use std::{collections::BTreeSet, fs};

use clap::Parser as _;
use kldtrace::cli::Cli;

use super::files::{Exported, repository};

const SECTIONS: &[&str] = &[
    "## What it means",
    "## See it",
    "## Usual causes",
    "## What to do",
    "## Whom to wake",
];

#[test]
fn every_alert_has_a_runbook() {
    let book = repository().join("docs/src");
    let summary = fs::read_to_string(book.join("SUMMARY.md")).unwrap();
    let index = fs::read_to_string(book.join("runbooks/index.md")).unwrap();
    let mut missing = Vec::new();
    for (_, alert, rule) in Exported::new(&[]).alerts() {
        let path = format!("runbooks/{alert}.md");
        let text = fs::read_to_string(book.join(&path)).unwrap_or_default();
        let mut rest = text.as_str();
        if !rest.starts_with(&format!("# {alert}\n")) {
            missing.push(format!("docs/src/{path}: # {alert}"));
        }
        for section in SECTIONS {
            // Each after the one before.
            match rest.split_once(&format!("\n{section}\n")) {
                Some((_, after)) => rest = after,
                None => missing.push(format!("docs/src/{path}: {section}")),
            }
        }
        if commands(&text).is_empty() {
            missing.push(format!(
                "docs/src/{path}: a command of kldtrace in a ```sh block"
            ));
        }
        if !summary.contains(&format!("({path})")) {
            missing.push(format!("docs/src/SUMMARY.md: {path}"));
        }
        let [severity, team] = ["severity", "team"].map(|name| rule.labels[name].as_str());
        let row = format!("| [{alert}]({alert}.md) | {severity} | {team} |");
        if !index.contains(&row) {
            missing.push(format!("docs/src/runbooks/index.md: {row}"));
        }
    }
    assert!(missing.is_empty(), "missing:\n{}", missing.join("\n"));
}

#[test]
fn every_runbook_is_of_an_alert() {
    let alerts: BTreeSet<_> = Exported::new(&[])
        .alerts()
        .into_iter()
        .map(|(_, name, _)| name)
        .collect();
    for file in fs::read_dir(repository().join("docs/src/runbooks")).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(
            name == "index" || alerts.contains(name),
            "{}",
            path.display()
        );
    }
}

#[test]
fn commands_parse() {
    for file in fs::read_dir(repository().join("docs/src/runbooks")).unwrap() {
        let path = file.unwrap().path();
        for command in commands(&fs::read_to_string(&path).unwrap()) {
            if let Err(error) = Cli::try_parse_from(words(&command)) {
                panic!("{}: {command}: {error}", path.display());
            }
        }
    }
}

/// The lines of ```sh blocks that call kldtrace, without pipes and comments.
fn commands(text: &str) -> Vec<String> {
    let mut shell = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            shell = line == "```sh";
        } else if shell && line.starts_with("kldtrace") {
            let end = [" | ", "  #"].iter().filter_map(|end| line.find(end)).min();
            commands.push(line[..end.unwrap_or(line.len())].to_owned());
        }
    }
    commands
}

/// Words as a shell divides them, with quotes of both kinds.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(end) if c == end => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c == ' ' => words.push(String::new()),
            _ => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn lines_are_divided_as_by_a_shell() {
    assert_eq!(words("a 'b c'  --d=\"e f\""), ["a", "b c", "--d=e f"]);
    let text =
        "```sh\nkldtrace doctor  # why\nzpool status\nkldtrace events | grep x\n```\nkldtrace x\n";
    assert_eq!(commands(text), ["kldtrace doctor", "kldtrace events"]);
}
