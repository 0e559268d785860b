//! How many flows are known.

use std::time::{Duration, Instant};

use aya::maps::MapData;
use kldtrace_abi::plane::{Flow, FlowKey, ShortKey};

use super::FlowsRead;
use crate::{
    kernel::batch::walk,
    planes::pins::Pins,
    signals::{clock::monotonic, maps::Plain},
};

/// They are counted no more often: a full table takes some milliseconds.
const EVERY: Duration = Duration::from_secs(10);
/// A flow that was seen since then is in use: nf_conntrack forgets one of UDP
/// after as long.
const RECENT: u64 = 120_000_000_000;

/// The tables of flows.
pub struct Flows {
    tables: Vec<(&'static str, MapData, usize)>,
    last: Option<(Instant, Vec<FlowsRead>)>,
}

impl Flows {
    /// Those of the valid programs.
    ///
    /// # Errors
    /// As [`Pins::counts`].
    pub fn open(pins: &Pins) -> anyhow::Result<Self> {
        let tables = [
            ("ipv4", "PLANE_FLOWS", size_of::<ShortKey>()),
            ("ipv6", "PLANE_FLOWS_V6", size_of::<FlowKey>()),
        ];
        let mut open = Vec::new();
        for (family, name, key) in tables {
            if let Some(map) = pins.open(name)? {
                open.push((family, map, key));
            }
        }
        Ok(Self {
            tables: open,
            last: None,
        })
    }

    /// How many there are, as of the last seconds.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&mut self) -> anyhow::Result<Vec<FlowsRead>> {
        if let Some((at, last)) = &self.last
            && at.elapsed() < EVERY
        {
            return Ok(last.clone());
        }
        let now = monotonic();
        let mut read = Vec::new();
        for (family, map, key) in &self.tables {
            let capacity = map.info()?.max_entries();
            let (mut recent, mut older) = (0, 0);
            // Twice as many: it may change meanwhile, and must end.
            let most = capacity.saturating_mul(2);
            walk(map, *key, 1, most, |flow: &[Plain<Flow>]| {
                if now.saturating_sub(flow[0].0.seen) < RECENT {
                    recent += 1;
                } else {
                    older += 1;
                }
            })?;
            read.push(FlowsRead {
                family,
                recent,
                older,
                capacity: capacity.into(),
            });
        }
        self.last = Some((Instant::now(), read.clone()));
        Ok(read)
    }
}
