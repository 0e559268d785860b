//! What is read at once: our own state, and the kernel's counters.

use std::time::{Duration, Instant};

use super::Reader;
use crate::{
    kernel::{loader::Availability, returns::Profile},
    signals::{
        collector::Collector,
        own::{self, Facts, ProgramState},
    },
};

impl Reader {
    pub(super) fn facts(&mut self, until: Instant) -> anyhow::Result<Facts> {
        let listened = self.node.finish_listening(until);
        let listeners = self.node.listening();
        let mut losses = vec![("listen_read", self.node.listen_failures())];
        losses.extend(self.node.losses()?);
        let mut maps = self.node.map_states()?;
        let mut folded = self.node.folded();
        for module in &self.modules {
            losses.extend(module.losses());
            maps.extend(module.map_states());
            folded.extend(module.folded());
        }
        let loaded = self.loaded();
        Ok(Facts {
            signals: self
                .signals()
                .into_iter()
                .filter(|(_, is)| !matches!(is, Availability::Unused(_)))
                .map(|(signal, is)| (signal.name, is == Availability::Available))
                .collect(),
            programs: self.programs(),
            stats_time: self.stats_time
                + self
                    .stats_since
                    .map_or(Duration::ZERO, |since| since.elapsed()),
            losses: add_up(losses),
            maps,
            folded,
            cgroup_events: self.node.cgroup_events(),
            attach: loaded.iter().map(|loaded| loaded.took).sum(),
            scrapes: self.scrapes.clone(),
            cpu: own::process_cpu(),
            resident: own::process_resident(),
            kernel: self.kernel.clone(),
            node: self.name.clone(),
            listened,
            listeners: self.serving.listeners(),
            certificates: self.serving.certificates(),
            push: self.serving.push.as_ref().map(|push| push.state()),
            collectors: self
                .modules
                .iter()
                .map(Collector::state)
                .chain([listeners])
                .collect(),
        })
    }

    fn programs(&self) -> Vec<ProgramState> {
        let profile = Profile::read();
        let mut states = Vec::new();
        for loaded in self.loaded() {
            states.extend(loaded.programs().into_iter().filter_map(|name| {
                let account = loaded.account(name)?;
                Some(ProgramState {
                    name,
                    run_time: account.run_time,
                    runs: account.runs,
                    misses: loaded.program_misses(name, &profile)?,
                })
            }));
        }
        states
    }
}

/// Every object counts its own share of what all can lose.
fn add_up(losses: Vec<(&'static str, u64)>) -> Vec<(&'static str, u64)> {
    let mut sums: Vec<(&'static str, u64)> = Vec::new();
    for (reason, count) in losses {
        match sums.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, sum)) => *sum += count,
            None => sums.push((reason, count)),
        }
    }
    sums
}
