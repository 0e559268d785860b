//! Tables of what the probes remember of kernel objects: only how full they are is
//! of interest here.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use kldtrace_abi::places::PLACES;

use super::own::MapState;
use crate::kernel::cost::map_memory;

/// A table (probes/src/places.rs).
pub struct Places {
    now: PerCpuArray<MapData, i64>,
    /// Objects that it can hold.
    capacity: u32,
    /// Kernel memory in bytes.
    memory: u64,
}

impl Places {
    /// Takes the map that counts out of the loaded object.
    ///
    /// # Errors
    /// When it is not there, or the kernel refuses it.
    pub fn take(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Self> {
        let counts = format!("{name}_NOW");
        let now = ebpf
            .take_map(&counts)
            .with_context(|| format!("no map {counts} in the object file"))?;
        let Some(Map::Array(data)) = ebpf.map(name) else {
            bail!("no array {name} in the object file");
        };
        Ok(Self {
            capacity: data.info()?.max_entries() * PLACES as u32,
            memory: map_memory(&data.fd().as_fd())?,
            now: now.try_into()?,
        })
    }

    /// How full it is now.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn state(&self, name: &'static str) -> Result<MapState, MapError> {
        let counts = self.now.get(&0, 0)?;
        Ok(MapState {
            name,
            entries: counts.iter().sum::<i64>().max(0).cast_unsigned(),
            capacity: self.capacity.into(),
            memory: self.memory,
        })
    }
}
