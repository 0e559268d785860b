//! What kldtrace carries for Prometheus and Alertmanager: rules and routing,
//! written as templates in alerts/, with the operator's numbers filled in.

pub mod template;
pub mod unit;
pub mod values;
pub mod write;

use template::Source;

/// The alert rules: one file for each subject of alerts/rules/.
pub const RULES: &[Source] = &[
    Source {
        name: "kldtrace-zfs.yml",
        text: include_str!("../../../alerts/rules/zfs.yml"),
    },
    Source {
        name: "kldtrace-wireguard.yml",
        text: include_str!("../../../alerts/rules/wireguard.yml"),
    },
    Source {
        name: "kldtrace-tcp.yml",
        text: include_str!("../../../alerts/rules/tcp.yml"),
    },
    Source {
        name: "kldtrace-sched.yml",
        text: include_str!("../../../alerts/rules/sched.yml"),
    },
    Source {
        name: "kldtrace-block.yml",
        text: include_str!("../../../alerts/rules/block.yml"),
    },
    Source {
        name: "kldtrace-node.yml",
        text: include_str!("../../../alerts/rules/node.yml"),
    },
    Source {
        name: "kldtrace-self.yml",
        text: include_str!("../../../alerts/rules/self.yml"),
    },
];

/// Routing and receivers for Alertmanager, and how their messages look.
pub const ALERTMANAGER: &[Source] = &[
    Source {
        name: "alertmanager.yml",
        text: include_str!("../../../alerts/alertmanager.yml"),
    },
    Source {
        name: "kldtrace.tmpl",
        text: include_str!("../../../alerts/kldtrace.tmpl"),
    },
];

#[cfg(test)]
mod tests {
    use super::{template::Bundle, *};

    #[test]
    fn what_is_carried_can_be_read() {
        for sources in [RULES, ALERTMANAGER] {
            let bundle = Bundle::parse(sources).unwrap();
            assert!(bundle.settings().len() > 5);
        }
    }

    /// An expression on the line of its key is a plain scalar, which a selector
    /// with `: ` or ` #` in it would end.
    #[test]
    fn expressions_are_blocks() {
        for source in RULES {
            for line in source.text.lines() {
                let line = line.trim_start();
                assert!(
                    !line.starts_with("expr:") || line == "expr: |-",
                    "{}: {line}: write `expr: |-` and the expression below it",
                    source.name
                );
            }
        }
    }
}
