//! The label `unit` of a line: of systemd's names, those that are a small set.

use std::borrow::Cow;

/// The unit of the kernel's lines.
pub const KERNEL: &str = "kernel";

/// What comes before a container's number in the name of its scope.
const CONTAINERS: [&str; 5] = ["docker", "libpod", "crio", "cri-containerd", "nerdctl"];

/// The name that `unit` has as a label. Sessions and `systemd-run` give a new
/// name each time, and so each would be a stream of its own; containers and
/// machines are named as in the metrics. Instances of templates keep theirs.
pub fn label(unit: &str) -> Cow<'_, str> {
    let numbered = |prefix: &str| {
        let rest = unit.strip_prefix(prefix)?;
        let (number, kind) = rest.rsplit_once('.')?;
        let number = number.trim_start_matches(['u', 'r', 'p', 'c']);
        let number = number.trim_end_matches("-i").replace('-', "");
        (number
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'i'))
        .then_some(kind)
    };
    for prefix in ["session-", "run-"] {
        if let Some(kind) = numbered(prefix) {
            return Cow::Owned(format!("{}.{kind}", prefix.trim_end_matches('-')));
        }
    }
    if let Some(scope) = unit.strip_suffix(".scope") {
        for container in CONTAINERS {
            let id = scope
                .strip_prefix(container)
                .and_then(|rest| rest.strip_prefix('-'));
            if let Some(id) =
                id.filter(|id| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()))
            {
                return Cow::Owned(format!("{container}/{}", &id[..12]));
            }
        }
    }
    Cow::Borrowed(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_new_each_time_are_one() {
        let id = "0123456789abcdef".repeat(4);
        for (unit, expected) in [
            ("ssh.service", "ssh.service"),
            ("getty@tty1.service", "getty@tty1.service"),
            ("session-12.scope", "session.scope"),
            ("session-c3.scope", "session.scope"),
            ("run-u123.service", "run.service"),
            ("run-r0123456789abcdef0123456789abcdef.scope", "run.scope"),
            ("run-p812-i913.service", "run.service"),
            ("run-parts.service", "run-parts.service"),
            ("session-manager.service", "session-manager.service"),
            (&*format!("docker-{id}.scope"), "docker/0123456789ab"),
            (
                &*format!("cri-containerd-{id}.scope"),
                "cri-containerd/0123456789ab",
            ),
            ("docker-é.scope", "docker-é.scope"),
            ("", ""),
        ] {
            assert_eq!(label(unit), expected, "{unit}");
        }
    }
}
