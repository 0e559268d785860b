//! Tables of what the probes remember of kernel objects: only how full they are is
//! of interest here.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use kldtrace_abi::places::PLACES;

use crate::kernel::cost::map_memory;

/// A table (probes/src/places.rs).
pub struct Places {
    now: PerCpuArray<MapData, i64>,
    /// Objects that it can hold.
    pub capacity: u32,
    /// Kernel memory in bytes.
    pub memory: u64,
}

impl Places {
    /// Takes the map that counts out of the loaded object.
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

    /// Objects that are remembered now.
    pub fn entries(&self) -> Result<u64, MapError> {
        let counts = self.now.get(&0, 0)?;
        Ok(counts.iter().sum::<i64>().max(0).cast_unsigned())
    }
}
