//! What Grafana needs to show the dashboards, and Loki to keep lines.

use super::template::Source;

/// Sources of these names, from files of dashboards/grafana/.
macro_rules! sources {
    ($($name:expr => $file:expr),+ $(,)?) => {
        &[$(Source {
            name: $name,
            text: include_str!(concat!("../../../dashboards/grafana/", $file)),
        }),+]
    };
}

/// Grafana's own configuration, where its data is and where its dashboards are.
pub const FILES: &[Source] = sources! {
    "grafana.ini" => "grafana.ini",
    "provisioning/datasources/kldtrace.yml" => "datasources.yml",
    "provisioning/dashboards/kldtrace.yml" => "provider.yml",
};

/// The folder of the dashboards, beside [`FILES`].
pub const DASHBOARDS: &str = "dashboards";

/// A Loki to begin with.
pub const LOKI: &[Source] = sources! { "loki.yml" => "loki.yml" };
