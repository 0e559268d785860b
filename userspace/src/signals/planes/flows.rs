//! How many flows are known.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    time::{Duration, Instant},
};

use aya::maps::MapData;
use aya_obj::generated::{bpf_attr, bpf_cmd};
use kldtrace_abi::plane::{Flow, FlowKey, ShortKey};

use super::FlowsRead;
use crate::{planes::pins::Pins, signals::clock::monotonic};

/// They are counted no more often: a full table takes some milliseconds.
const EVERY: Duration = Duration::from_secs(10);
/// A flow that was seen since then is in use: nf_conntrack forgets one of UDP
/// after as long.
const RECENT: u64 = 120_000_000_000;
/// Entries that are read at once.
const BATCH: usize = 4096;

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
            walk(map, *key, capacity.saturating_mul(2), |flow| {
                if now.saturating_sub(flow.seen) < RECENT {
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

/// Walks over a table, at most so many entries (`BPF_MAP_LOOKUP_BATCH`, since
/// 5.6; aya has no word for it).
fn walk(map: &MapData, key: usize, most: u32, mut each: impl FnMut(&Flow)) -> io::Result<()> {
    let mut keys = vec![0_u8; key * BATCH];
    let mut flows = vec![Flow::default(); BATCH];
    let (mut from, mut to) = (0_u32, 0_u32);
    let mut left = most;
    let mut begun = false;
    while left > 0 {
        // SAFETY: integers; the kernel wants what is not used to be 0.
        let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
        attr.batch.map_fd = map.fd().as_fd().as_raw_fd().cast_unsigned();
        attr.batch.in_batch = if begun { &raw const from as u64 } else { 0 };
        attr.batch.out_batch = &raw mut to as u64;
        attr.batch.keys = keys.as_mut_ptr() as u64;
        attr.batch.values = flows.as_mut_ptr() as u64;
        attr.batch.count = BATCH as u32;
        // SAFETY: the kernel reads and writes the union and what it points to,
        // all of which lives until it returns. A batch has room for its keys
        // and values, whose sizes are the map's.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                bpf_cmd::BPF_MAP_LOOKUP_BATCH as libc::c_int,
                &raw mut attr,
                size_of::<bpf_attr>(),
            )
        };
        let error = (result < 0).then(io::Error::last_os_error);
        let ended = error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::ENOENT);
        if let Some(error) = error.filter(|_| !ended) {
            return Err(error);
        }
        // SAFETY: an integer that the kernel wrote.
        let count = unsafe { attr.batch.count };
        flows.iter().take(count as usize).for_each(&mut each);
        if ended {
            return Ok(());
        }
        left = left.saturating_sub(count.max(1));
        from = to;
        begun = true;
    }
    Ok(())
}
