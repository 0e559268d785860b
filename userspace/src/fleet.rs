//! The nodes that Prometheus scrapes: one list, for service discovery by HTTP
//! and for the files of `kldtrace export prometheus`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::Config;

/// The nodes of the configuration; this one, where it names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fleet {
    /// Address of each node's `/metrics`, by name.
    nodes: BTreeMap<String, String>,
    /// Whether they are asked by TLS, which all nodes are if this one is.
    tls: bool,
}

/// A target and its labels, as Prometheus reads them.
///
/// <https://prometheus.io/docs/prometheus/latest/http_sd/>
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetGroup {
    targets: [String; 1],
    labels: BTreeMap<&'static str, String>,
}

impl Fleet {
    /// As the configuration has it.
    pub fn new(config: &Config) -> Self {
        let mut nodes = config.fleet.nodes.clone();
        if nodes.is_empty()
            && let Some(address) = config.listen.address
        {
            nodes.insert(config.node_name(), address.to_string());
        }
        Self {
            nodes,
            tls: config.listen.tls_certificate.is_some(),
        }
    }

    /// Whether the nodes are asked by TLS.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A target for each node, with its name as the label `node`.
    pub fn targets(&self) -> Vec<TargetGroup> {
        let scheme = if self.tls { "https" } else { "http" };
        let target = |(name, address): (&String, &String)| TargetGroup {
            targets: [address.clone()],
            labels: BTreeMap::from([("__scheme__", scheme.to_owned()), ("node", name.clone())]),
        };
        self.nodes.iter().map(target).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Fleet {
        Fleet::new(&Config::parse(text, "c.toml", []).unwrap())
    }

    #[test]
    fn a_node_alone_is_its_own_fleet() {
        let fleet = parse("[node]\nname = \"a\"");
        assert_eq!(
            serde_json::to_string(&fleet.targets()).unwrap(),
            r#"[{"targets":["127.0.0.1:9750"],"labels":{"__scheme__":"http","node":"a"}}]"#
        );
        assert!(parse("[listen]\naddress = \"off\"").is_empty());
    }

    #[test]
    fn a_fleet_is_as_configured() {
        let fleet = parse(
            "[listen]\ntls_certificate = \"/c\"\ntls_key = \"/k\"\n\
             [fleet.nodes]\nb = \"[fd00::2]:9750\"\na = \"a.example:9750\"",
        );
        assert_eq!(fleet.len(), 2);
        assert_eq!(
            serde_json::to_string(&fleet.targets()).unwrap(),
            r#"[{"targets":["a.example:9750"],"labels":{"__scheme__":"https","node":"a"}},{"targets":["[fd00::2]:9750"],"labels":{"__scheme__":"https","node":"b"}}]"#
        );
    }
}
