//! Reading and checking what is about the journal.

use kldtrace_exporters::journal::redact::{self, Rule};
use toml::{Spanned, de::DeValue};

use super::read::{Fault, Input, fault, shown, text, texts};
use crate::words::did_you_mean;

/// What takes the place of what a rule finds, if the rule says nothing.
const REDACTED: &str = "[redacted]";

/// Patterns of names.
pub(super) fn patterns(input: &Input<'_>) -> Result<Vec<String>, Fault> {
    let patterns = texts(input)?.into_iter().map(|(place, pattern)| {
        // UNIT_NAME_MAX of systemd.
        if pattern.len() > 255 || pattern.contains(char::is_control) {
            let found = shown(place.get_ref());
            let message = format!("must have names such as \"ssh*.service\", not {found}");
            return Err(fault(place, message));
        }
        Ok(pattern.to_owned())
    });
    patterns.collect()
}

/// Names of built-in rules of redaction.
pub(super) fn redact_off(input: &Input<'_>) -> Result<Vec<String>, Fault> {
    let names = texts(input)?.into_iter().map(|(place, name)| {
        if redact::names().any(|known| known == name) {
            return Ok(name.to_owned());
        }
        let hint = did_you_mean(name, redact::names());
        let found = shown(place.get_ref());
        Err(fault(place, format!("no built-in rule {found}{hint}")))
    });
    names.collect()
}

/// Rules of redaction.
pub(super) fn rules(input: &Input<'_>) -> Result<Vec<Rule>, Fault> {
    let wanted = "a list of rules such as { pattern = 'x', replacement = \"y\" }";
    let Some(list) = input.value.get_ref().as_array() else {
        let found = shown(input.value.get_ref());
        return Err(fault(input.value, format!("must be {wanted}, not {found}")));
    };
    if let Some(over) = list.get(redact::RULES) {
        let message = format!("must have at most {} rules", redact::RULES);
        return Err(fault(over, message));
    }
    list.iter().map(|one| rule(one, wanted)).collect()
}

fn rule(value: &Spanned<DeValue<'_>>, wanted: &str) -> Result<Rule, Fault> {
    let Some(table) = value.get_ref().as_table() else {
        let found = shown(value.get_ref());
        return Err(fault(
            value,
            format!("must be {wanted}; {found} is no rule"),
        ));
    };
    let (mut pattern, mut replacement) = (None, REDACTED);
    for (name, value) in table {
        match &**name.get_ref() {
            "pattern" => pattern = Some((value, text(value, "a regular expression")?)),
            "replacement" => replacement = text(value, "a string")?,
            other => {
                let hint = did_you_mean(other, ["pattern", "replacement"]);
                return Err(Fault {
                    offset: name.span().start,
                    message: format!("a rule has no key {other:?}{hint}"),
                });
            }
        }
    }
    let Some((place, pattern)) = pattern else {
        return Err(fault(value, "a rule has no pattern".to_owned()));
    };
    let rule = Rule {
        pattern: pattern.to_owned(),
        replacement: replacement.to_owned(),
    };
    match rule.check() {
        Ok(()) => Ok(rule),
        Err(why) => Err(fault(place, format!("the pattern cannot be used: {why}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::config::{Config, JournalSince, Priority};

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "k.toml", []).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_a_section() {
        let text = r#"
            [loki]
            url = "http://loki:3100"
            [journal]
            enabled = true
            since = "boot"
            units = ["ssh*", "", "kernel"]
            exclude_units = ["*.mount"]
            exclude_identifiers = ["sudo"]
            priority = "warning"
            rate = 0
            line_size = "8KiB"
            batch_age = "100ms"
            redact_off = ["aws", "token"]
            redact = [
                { pattern = 'customer (\d)\d+', replacement = "customer ${1}*" },
                { pattern = '(?i)pin' },
            ]
        "#;
        let journal = parse(text).unwrap().journal;
        assert!(journal.enabled);
        assert_eq!(journal.since, JournalSince::Boot);
        assert_eq!(journal.units, ["ssh*", "", "kernel"]);
        assert_eq!(journal.exclude_units, ["*.mount"]);
        assert_eq!(journal.exclude_identifiers, ["sudo"]);
        assert_eq!(journal.priority, Priority::Warning);
        assert_eq!((journal.rate, journal.burst), (0, 10_000));
        assert_eq!(journal.line_size, 8192);
        assert_eq!(journal.batch_age, Duration::from_millis(100));
        assert_eq!(journal.redact_off, ["aws", "token"]);
        let rules = journal.redact.iter();
        let rules: Vec<_> = rules
            .map(|rule| (&*rule.pattern, &*rule.replacement))
            .collect();
        let expected = [
            (r"customer (\d)\d+", "customer ${1}*"),
            ("(?i)pin", "[redacted]"),
        ];
        assert_eq!(rules, expected);
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, message) in [
            (
                "since = \"begin\"",
                r#"9: since in [journal] must be "now" or "boot" or "oldest", not "begin""#,
            ),
            (
                "units = \"ssh*\"",
                r#"9: units in [journal] must be a list: write ["ssh*"]"#,
            ),
            (
                "units = [\"a\\nb\"]",
                r#"10: units in [journal] must have names such as "ssh*.service", not "a\nb""#,
            ),
            (
                "priority = \"error\"",
                r#"12: priority in [journal] must be "emerg" or "alert" or "crit" or "err" or "warning" or "notice" or "info" or "debug", not "error""#,
            ),
            (
                "redact_off = [\"tokens\"]",
                r#"15: redact_off in [journal]: no built-in rule "tokens" (did you mean "token"?)"#,
            ),
            (
                "redact = [\"x\"]",
                r#"11: redact in [journal] must be a list of rules such as { pattern = 'x', replacement = "y" }; "x" is no rule"#,
            ),
            (
                "redact = [{ patern = 'x' }]",
                r#"13: redact in [journal]: a rule has no key "patern" (did you mean "pattern"?)"#,
            ),
            (
                "redact = [{ replacement = 'x' }]",
                "11: redact in [journal]: a rule has no pattern",
            ),
            (
                "redact = [{ pattern = '(a' }]",
                "23: redact in [journal]: the pattern cannot be used: unclosed group",
            ),
            (
                "redact = [{ pattern = 'a*' }]",
                "23: redact in [journal]: the pattern cannot be used: the empty text matches, which is everywhere",
            ),
            (
                "line_size = \"1MiB\"",
                r#"13: line_size in [journal] must be a size from 1KiB to 256KiB, not "1MiB""#,
            ),
        ] {
            let error = parse(&format!("[journal]\n{text}")).unwrap_err();
            assert_eq!(error, format!("k.toml:2:{message}"));
        }
    }

    #[test]
    fn a_journal_needs_somebody_who_takes_it() {
        let enabled = "[journal]\nenabled = true\n";
        let error = "k.toml:1:2: enabled in [journal] needs url in [loki], or url in [otlp] with \
            \"logs\" among its signals: there is nowhere to push to";
        assert_eq!(parse(enabled).unwrap_err(), error);
        let otlp = "[otlp]\nurl = \"http://collector:4317\"\n";
        let metrics = format!("{enabled}{otlp}signals = [\"metrics\"]");
        assert_eq!(parse(&metrics).unwrap_err(), error);
        for sound in [
            format!("{enabled}{otlp}"),
            format!("{enabled}[loki]\nurl = \"http://loki:3100\""),
            "[journal]\nunits = [\"x\"]".to_owned(),
        ] {
            parse(&sound).unwrap();
        }
    }
}
