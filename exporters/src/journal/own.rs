//! The lines that this process itself writes into the journal.
//!
//! They are not shipped: a line that says that a push failed would be pushed,
//! fail, and make the next; and events, which the daemon logs, would come
//! twice.

use std::fs;

use super::export::Entry;

/// This process as journald names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Own {
    /// The unit that it is in.
    pub unit: String,
    /// Its name, as in /proc/PID/comm.
    pub command: String,
}

impl Own {
    /// `None`: no unit of systemd's has this process, and so nobody writes what
    /// it says into the journal under its name.
    pub fn find() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let command = fs::read_to_string("/proc/self/comm").ok()?;
        Some(Self {
            unit: unit(&groups)?.to_owned(),
            command: command.trim_end().to_owned(),
        })
    }

    /// Whether a process of our name in our unit wrote it. What systemd and
    /// others say about the unit is shipped.
    pub fn wrote(&self, entry: &Entry) -> bool {
        entry.get("_SYSTEMD_UNIT") == Some(self.unit.as_bytes())
            && entry.get("_COMM") == Some(self.command.as_bytes())
    }
}

/// The unit in /proc/PID/cgroup: the first part of the path in the unified
/// hierarchy that is no slice, as cg_path_get_unit of systemd has it.
fn unit(groups: &str) -> Option<&str> {
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let slice = |part: &&str| part.strip_suffix(".slice").is_some();
    let mut parts = path.split('/').skip_while(slice);
    parts.next().filter(|part| part.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::export::Parser;

    #[test]
    fn the_unit_is_read_from_the_control_group() {
        for (groups, expected) in [
            (
                "0::/system.slice/kldtrace.service\n",
                Some("kldtrace.service"),
            ),
            (
                "0::/a.slice/a-b.slice/x@1.service/payload\n",
                Some("x@1.service"),
            ),
            (
                "9:memory:/x.service\n0::/user.slice/user-0.slice/session-3.scope\n",
                Some("session-3.scope"),
            ),
            ("0::/\n", None),
            ("0::/system.slice\n", None),
            ("0::/payload\n", None),
            ("", None),
        ] {
            assert_eq!(unit(groups), expected, "{groups}");
        }
    }

    #[test]
    fn only_our_command_in_our_unit_is_ours() {
        let own = Own {
            unit: "kldtrace.service".to_owned(),
            command: "kldtrace".to_owned(),
        };
        for (unit, command, ours) in [
            ("kldtrace.service", "kldtrace", true),
            ("kldtrace.service", "sh", false),
            ("init.scope", "systemd", false),
            ("other.service", "kldtrace", false),
        ] {
            let text = format!("_SYSTEMD_UNIT={unit}\n_COMM={command}\nMESSAGE=x\n\n");
            let mut parser = Parser::new();
            let entry = parser.next(&mut text.as_bytes()).unwrap();
            assert_eq!(own.wrote(entry), ours, "{unit} {command}");
        }
    }
}
