//! What is read at once: our own state, and the kernel's counters.

use std::time::Duration;

use super::{Reader, unit};
use crate::{
    kernel::loader::Availability,
    signals::own::{self, Facts, MapState, ProgramState},
};

impl Reader {
    pub(super) fn facts(&mut self) -> anyhow::Result<Facts> {
        let cgroups = &self.cgroups;
        if let Err(error) = self.listeners.read(&|id| unit(cgroups, id).0) {
            tracing::warn!(
                error = format!("{error:#}"),
                "cannot read listening sockets"
            );
        }
        let mut losses: Vec<_> = self
            .maps
            .losses()?
            .into_iter()
            .map(|(loss, count)| (loss.as_str(), count))
            .collect();
        losses.push(("listen_read", self.listeners.failures()));
        let programs = self
            .loaded
            .attached
            .iter()
            .filter_map(|attached| {
                let info = self.loaded.program_info(attached.hook.program)?;
                Some(ProgramState {
                    name: attached.hook.program,
                    run_time: info.run_time(),
                    runs: info.run_count(),
                    misses: self.loaded.program_misses(attached.hook.program)?,
                })
            })
            .collect();
        let map = |name, entries, capacity, memory| MapState {
            name,
            entries,
            capacity: u64::from(capacity),
            memory,
        };
        let [sched, tcp, block] = self.entries;
        Ok(Facts {
            signals: self
                .loaded
                .signals
                .iter()
                .map(|(signal, is)| (signal.name, *is == Availability::Available))
                .collect(),
            programs,
            stats_time: self.stats_time
                + self
                    .stats_since
                    .map_or(Duration::ZERO, |since| since.elapsed()),
            losses,
            maps: vec![
                map(
                    "sched",
                    sched,
                    self.maps.sched.capacity(),
                    self.maps.sched.memory(),
                ),
                map("tcp", tcp, self.maps.tcp.capacity(), self.maps.tcp.memory()),
                map(
                    "sockets",
                    self.maps.sockets.entries()?,
                    self.maps.sockets.capacity,
                    self.maps.sockets.memory,
                ),
                map(
                    "block",
                    block,
                    self.maps.block.capacity(),
                    self.maps.block.memory(),
                ),
            ],
            folded: vec![
                ("sched", self.sched.folded),
                ("tcp", self.tcp.folded),
                ("block", self.block.folded),
            ],
            cgroup_events: self.cgroups.events,
            attach: self.loaded.took,
            scrapes: self.scrapes.clone(),
            cpu: own::process_cpu(),
            resident: own::process_resident(),
            kernel: self.kernel.clone(),
            node: self.node.clone(),
            listen_overflows: self.listeners.overflows(),
            listening: self.listeners.drops().clone(),
        })
    }
}
