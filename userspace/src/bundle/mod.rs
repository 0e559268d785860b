//! What kldtrace carries for the systems that it reports to: rules and routing,
//! written as templates in alerts/, with the operator's numbers filled in, and
//! dashboards with what Grafana needs to show them, from dashboards/.

pub mod check;
pub mod dashboards;
pub mod grafana;
pub mod template;
pub mod unit;
pub mod values;
pub mod write;

use template::Source;

/// Sources of these names, from files of alerts/.
macro_rules! sources {
    ($($name:expr => $file:expr),+ $(,)?) => {
        &[$(Source { name: $name, text: include_str!(concat!("../../../alerts/", $file)) }),+]
    };
}

/// The alert rules: one file for each subject of alerts/rules/.
pub const RULES: &[Source] = sources! {
    "kldtrace-zfs.yml" => "rules/zfs.yml",
    "kldtrace-wireguard.yml" => "rules/wireguard.yml",
    "kldtrace-planes.yml" => "rules/planes.yml",
    "kldtrace-tcp.yml" => "rules/tcp.yml",
    "kldtrace-sched.yml" => "rules/sched.yml",
    "kldtrace-block.yml" => "rules/block.yml",
    "kldtrace-node.yml" => "rules/node.yml",
    "kldtrace-self.yml" => "rules/self.yml",
};

/// Routing and receivers for Alertmanager, and how their messages look.
pub const ALERTMANAGER: &[Source] = sources! {
    "alertmanager.yml" => "alertmanager.yml",
    "kldtrace.tmpl" => "kldtrace.tmpl",
};

#[cfg(test)]
mod tests {
    use super::{template::Bundle, *};

    #[test]
    fn what_is_carried_can_be_read() {
        for sources in [RULES, ALERTMANAGER, grafana::FILES, grafana::LOKI] {
            let bundle = Bundle::parse(sources).unwrap();
            assert!(bundle.settings().len() >= 3);
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
