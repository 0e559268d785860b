//! Who reports: OTLP's resource, by OpenTelemetry's semantic conventions.

use opentelemetry_proto::tonic::{
    common::v1::{InstrumentationScope, KeyValue},
    resource::v1,
};

use super::value::text;

/// The conventions that names of attributes follow.
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";
/// `service.name`, and the name of the instrumentation scope.
pub const SERVICE: &str = "kldtrace";

/// What is known of the node and of the process on it.
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    /// `service.version`: that of kldtrace.
    pub version: &'a str,
    /// `service.instance.id`: the same for as long as the node has this one.
    pub instance: &'a str,
    /// `host.name`.
    pub host: &'a str,
    /// `host.arch`, as Rust or `uname -m` name it: `x86_64`, `aarch64`.
    pub arch: &'a str,
    /// `os.version`: the kernel's release.
    pub kernel: &'a str,
}

/// Who reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    version: String,
    instance: String,
    attributes: Vec<KeyValue>,
}

impl Resource {
    /// The resource of a node. What is not known ("") is left out.
    pub fn new(node: &Node<'_>) -> Self {
        let known = [
            ("service.name", SERVICE),
            ("service.version", node.version),
            ("service.instance.id", node.instance),
            ("host.name", node.host),
            ("host.arch", arch(node.arch)),
            ("os.type", "linux"),
            ("os.version", node.kernel),
        ];
        let known = known.into_iter().filter(|(_, value)| !value.is_empty());
        Self {
            version: node.version.to_owned(),
            instance: node.instance.to_owned(),
            attributes: known.map(|(name, value)| text(name, value)).collect(),
        }
    }

    /// What tells this node's ids of traces from another's.
    pub(super) fn instance(&self) -> &str {
        &self.instance
    }

    pub(super) fn message(&self) -> v1::Resource {
        v1::Resource {
            attributes: self.attributes.clone(),
            ..v1::Resource::default()
        }
    }

    pub(super) fn scope(&self) -> InstrumentationScope {
        InstrumentationScope {
            name: SERVICE.to_owned(),
            version: self.version.clone(),
            ..InstrumentationScope::default()
        }
    }
}

/// The conventions' name of an architecture; any other stands as it is.
fn arch(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
