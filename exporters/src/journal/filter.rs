//! Which lines are shipped.

use crate::glob::matches;

/// Which lines are shipped. In patterns, `*` stands for any text. An empty
/// list excludes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Patterns of units; lines of others are left out. Lines of no unit have
    /// the name "".
    pub units: Vec<String>,
    /// Patterns of units that are left out of those.
    pub exclude_units: Vec<String>,
    /// Patterns of SYSLOG_IDENTIFIER.
    pub identifiers: Vec<String>,
    /// Patterns of SYSLOG_IDENTIFIER that are left out of those.
    pub exclude_identifiers: Vec<String>,
    /// Least important priority that is shipped, as syslog counts: 0 is an
    /// emergency, 7 is for debugging.
    pub priority: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            units: Vec::new(),
            exclude_units: Vec::new(),
            identifiers: Vec::new(),
            exclude_identifiers: Vec::new(),
            priority: 7,
        }
    }
}

/// What is known of a line before it is made a record.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// As it is exported.
    pub unit: &'a str,
    /// As systemd has it.
    pub systemd_unit: &'a str,
    /// SYSLOG_IDENTIFIER; "" for none.
    pub identifier: &'a str,
    /// As syslog counts.
    pub priority: u8,
}

impl Settings {
    /// Whether such a line is shipped.
    pub fn passes(&self, line: About<'_>) -> bool {
        let unit = [line.unit, line.systemd_unit];
        let identifier = [line.identifier];
        line.priority <= self.priority
            && (self.units.is_empty() || any(&self.units, &unit))
            && !any(&self.exclude_units, &unit)
            && (self.identifiers.is_empty() || any(&self.identifiers, &identifier))
            && !any(&self.exclude_identifiers, &identifier)
    }
}

fn any(patterns: &[String], names: &[&str]) -> bool {
    let one = |pattern: &String| names.iter().any(|name| matches(pattern, name));
    patterns.iter().any(one)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(unit: &'static str, identifier: &'static str, priority: u8) -> About<'static> {
        About {
            unit,
            systemd_unit: unit,
            identifier,
            priority,
        }
    }

    fn list(patterns: &[&str]) -> Vec<String> {
        patterns
            .iter()
            .map(|pattern| (*pattern).to_owned())
            .collect()
    }

    #[test]
    fn without_settings_all_pass() {
        let settings = Settings::default();
        assert!(settings.passes(line("", "", 7)));
        assert!(settings.passes(line("kernel", "kernel", 0)));
    }

    #[test]
    fn units_are_taken_in_and_out() {
        let settings = Settings {
            units: list(&["ssh*", "postgres@*.service", ""]),
            exclude_units: list(&["*.socket"]),
            ..Settings::default()
        };
        for unit in ["ssh.service", "postgres@main.service", ""] {
            assert!(settings.passes(line(unit, "x", 6)), "{unit}");
        }
        for unit in ["sshd.socket", "postgres.service", "cron.service"] {
            assert!(!settings.passes(line(unit, "x", 6)), "{unit}");
        }
    }

    #[test]
    fn a_unit_goes_by_both_of_its_names() {
        let settings = Settings {
            exclude_units: list(&["session-3.scope"]),
            ..Settings::default()
        };
        let line = About {
            systemd_unit: "session-3.scope",
            ..line("session.scope", "sshd", 6)
        };
        assert!(!settings.passes(line));
        let settings = Settings {
            units: list(&["session.scope"]),
            ..Settings::default()
        };
        assert!(settings.passes(line));
    }

    #[test]
    fn priorities_at_least_as_important_pass() {
        let settings = Settings {
            priority: 4,
            ..Settings::default()
        };
        for priority in 0..=7 {
            assert_eq!(settings.passes(line("a", "b", priority)), priority <= 4);
        }
    }

    #[test]
    fn identifiers_are_taken_in_and_out() {
        let settings = Settings {
            identifiers: list(&["s*"]),
            exclude_identifiers: list(&["sudo"]),
            ..Settings::default()
        };
        let passes = |identifier| settings.passes(line("a", identifier, 6));
        assert!(passes("sshd") && !passes("sudo") && !passes("cron") && !passes(""));
    }
}
