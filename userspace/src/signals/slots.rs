//! Scheduler accounts: an array of slots, one for each cgroup.
//!
//! The probe of `cgroup_mkdir` takes a free slot for each new cgroup; this
//! side does so for those that were there before, and gives slots back.

use std::{
    collections::{HashMap as StdMap, VecDeque},
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, Queue},
};
use kldtrace_abi::{OTHER, sched::Sched};

use super::maps::{Plain, Sum};

/// A slot rests for so long before another cgroup gets it: the last task of
/// a removed cgroup may still have to leave the CPU for good.
const REST: Duration = Duration::from_millis(250);

/// A slot whose cgroup is gone.
struct Resting {
    cgroup: u64,
    slot: u32,
    since: Instant,
}

/// The accounts, the slots by cgroup, and the slots that are free.
pub struct SlotMap {
    accounts: PerCpuArray<MapData, Plain<Sched>>,
    slots: HashMap<MapData, u64, u32>,
    free: Queue<MapData, u32>,
    resting: VecDeque<Resting>,
    cpus: usize,
    capacity: u32,
    memory: u64,
}

impl SlotMap {
    /// Takes the maps from the loaded object; all slots are free.
    pub fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let mut take = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name} in the object file"))
        };
        let accounts = take("SCHED")?;
        let Map::PerCpuArray(data) = &accounts else {
            bail!("map SCHED is no per-CPU array");
        };
        let capacity = data.info()?.max_entries();
        let memory = crate::kernel::cost::map_memory(&data.fd().as_fd())?;
        let mut free: Queue<_, u32> = take("FREE_SLOTS")?.try_into()?;
        // Slot 0 takes what has none.
        for slot in 1..capacity {
            free.push(slot, 0)?;
        }
        Ok(Self {
            accounts: accounts.try_into()?,
            slots: take("SLOTS")?.try_into()?,
            free,
            resting: VecDeque::new(),
            cpus: usize::try_from(crate::kernel::loader::cpus()?)?,
            capacity,
            memory,
        })
    }

    /// Gives slots to cgroups that have none, as long as there are free ones;
    /// whether each has one now.
    pub fn assign(&mut self, cgroups: impl Iterator<Item = u64>) -> Result<bool, MapError> {
        for cgroup in cgroups {
            match self.slots.get(&cgroup, 0) {
                Ok(_) => continue,
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
            let Ok(slot) = self.free.pop(0) else {
                return Ok(false);
            };
            self.slots.insert(cgroup, slot, 0)?;
        }
        Ok(true)
    }

    /// All accounts by cgroup, each summed over the CPUs; [`OTHER`] is what
    /// had no slot.
    pub fn read(&self) -> Result<StdMap<u64, Box<Sched>>, MapError> {
        let mut accounts = StdMap::new();
        accounts.insert(OTHER, self.account(0)?);
        for entry in &self.slots {
            let (cgroup, slot) = entry?;
            accounts.insert(cgroup, self.account(slot)?);
        }
        Ok(accounts)
    }

    fn account(&self, slot: u32) -> Result<Box<Sched>, MapError> {
        let mut sum = Box::new(Sched::ZERO);
        for value in &*self.accounts.get(&slot, 0)? {
            sum.add(&value.0);
        }
        Ok(sum)
    }

    /// Takes the account of a removed cgroup out of its slot, which then
    /// rests. `None`: it has no slot.
    pub fn retire(&mut self, cgroup: u64) -> Result<Option<Box<Sched>>, MapError> {
        let slot = match self.slots.get(&cgroup, 0) {
            Ok(slot) => slot,
            Err(MapError::KeyNotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        self.slots.remove(&cgroup)?;
        let account = self.empty(slot)?;
        self.resting.push_back(Resting {
            cgroup,
            slot,
            since: Instant::now(),
        });
        Ok(Some(account))
    }

    /// Frees the slots that have rested, and returns what their cgroups still
    /// counted meanwhile.
    pub fn release(&mut self) -> Result<Vec<(u64, Box<Sched>)>, MapError> {
        let mut late = Vec::new();
        while let Some(resting) = self.resting.front() {
            if resting.since.elapsed() < REST {
                break;
            }
            let (cgroup, slot) = (resting.cgroup, resting.slot);
            late.push((cgroup, self.empty(slot)?));
            self.free.push(slot, 0)?;
            self.resting.pop_front();
        }
        Ok(late)
    }

    fn empty(&mut self, slot: u32) -> Result<Box<Sched>, MapError> {
        let account = self.account(slot)?;
        let zero = PerCpuValues::try_from(vec![Plain(Sched::ZERO); self.cpus])?;
        self.accounts.set(slot, zero, 0)?;
        Ok(account)
    }

    /// Cgroups that can have an account of their own.
    pub fn capacity(&self) -> u32 {
        self.capacity - 1
    }

    /// Kernel memory in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }
}
