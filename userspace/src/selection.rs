//! From the configuration to signals and loader options.

use std::sync::Arc;

use crate::{
    catalogue::{self, Cost, Signal},
    config::Config,
    kernel::loader::Options,
    signals::{Labels, wireguard::names::Names},
};

/// The names that a configuration may use.
pub fn names() -> impl Iterator<Item = &'static str> {
    catalogue::signals().map(|signal| signal.name)
}

/// The signals that a configuration asks for. What costs much must be asked
/// for by its name.
pub fn signals(config: &Config) -> Vec<&'static Signal> {
    let asked =
        |signal: &Signal| signal.cost != Cost::OnDemand || config.signals.names(signal.name);
    catalogue::signals()
        .filter(|signal| config.signals.wants(signal.name) && asked(signal))
        .collect()
}

/// What a configuration tells the loader.
pub fn options(config: &Config) -> Options {
    Options {
        map_memory: config.limits.map_memory_bytes(node_memory()),
        event_buffer: u32::try_from(config.limits.event_buffer).unwrap_or(u32::MAX),
        avoid: config
            .hooks
            .avoid
            .iter()
            .map(|kind| kind.as_str())
            .collect(),
        diagnostics: config.log.probes,
        settings: vec![(
            "ZFS_SLOW_NS",
            u64::try_from(config.zfs.slow_operation.as_nanos()).unwrap_or(u64::MAX),
        )],
        ..Options::default()
    }
}

/// What a configuration says of labels.
pub fn labels(config: &Config) -> Labels {
    Labels {
        series: usize::try_from(config.limits.series_per_family).unwrap_or(usize::MAX),
        names: Arc::new(Names {
            planes: config.planes.interfaces.clone(),
            peers: config.wireguard.peers.clone(),
        }),
    }
}

/// RAM of the node in bytes (proc(5): meminfo); 0 without /proc.
fn node_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        .saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_costs_much_is_asked_for_by_name() {
        let on_demand = |config: &Config| {
            let wanted = signals(config);
            let wanted = wanted.iter().filter(|one| one.cost == Cost::OnDemand);
            wanted.map(|one| one.name).collect::<Vec<_>>()
        };
        let mut config = Config::default();
        assert!(on_demand(&config).is_empty());
        config.signals.enable.push("zfs.*".to_owned());
        assert!(on_demand(&config).is_empty());
        config.signals.enable.push("zfs.taskq_wait".to_owned());
        assert_eq!(on_demand(&config), ["zfs.taskq_wait"]);
        config.signals.disable.push("zfs.*".to_owned());
        assert!(on_demand(&config).is_empty());
    }
}
