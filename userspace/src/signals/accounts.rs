//! Accounts of the probes that lie in an array, each at the slot of its key.
//!
//! The probes take a free slot for a key that is new (probes/src/slots.rs); this
//! side reads the accounts, and gives back the slots of those whose owner is gone.

use std::{
    collections::{HashMap as StdMap, VecDeque, hash_map::Entry},
    hash::Hash,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, Queue},
};

use super::maps::{Plain, Sum};
use crate::kernel::{cost::map_memory, loader};

/// A slot rests for so long before another key gets it: a program that had found
/// it before it was taken away may still be counting. Such a program runs for less
/// than a microsecond, but the host may take the CPU from under it.
const REST: Duration = Duration::from_millis(250);

/// A slot whose key's owner is gone.
struct Resting<K> {
    key: K,
    slot: u32,
    since: Instant,
}

/// The accounts, the slots by key, their owners, and the slots that are free.
pub struct SlotAccounts<K: Copy + 'static, A: Copy + 'static> {
    accounts: PerCpuArray<MapData, Plain<A>>,
    slots: HashMap<MapData, Plain<K>, u32>,
    free: Queue<MapData, u32>,
    owners: Array<MapData, Plain<K>>,
    resting: VecDeque<Resting<K>>,
    /// The key of what found no slot: it is counted at slot 0.
    other: K,
    /// Owns what nobody owns.
    nobody: K,
    cpus: usize,
    capacity: u32,
    memory: u64,
}

impl<K: Copy + Eq + Hash + 'static, A: Sum> SlotAccounts<K, A> {
    /// Takes the maps from the loaded object; all slots are free.
    ///
    /// # Errors
    /// When there are no such maps, or the kernel refuses them.
    pub fn take(ebpf: &mut Ebpf, name: &str, other: K, nobody: K) -> anyhow::Result<Self> {
        let mut take = |name: &str| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name} in the object file"))
        };
        let accounts = take(name)?;
        let Map::PerCpuArray(data) = &accounts else {
            bail!("map {name} is no per-CPU array");
        };
        let capacity = data.info()?.max_entries();
        let memory = map_memory(&data.fd().as_fd())?;
        let mut free: Queue<_, u32> = take(&format!("{name}_FREE"))?.try_into()?;
        let mut owners: Array<_, Plain<K>> = take(&format!("{name}_OWNERS"))?.try_into()?;
        for slot in 0..capacity {
            owners.set(slot, Plain(nobody), 0)?;
            // Slot 0 takes what has none.
            if slot > 0 {
                free.push(slot, 0)?;
            }
        }
        Ok(Self {
            accounts: accounts.try_into()?,
            slots: take(&format!("{name}_SLOTS"))?.try_into()?,
            free,
            owners,
            resting: VecDeque::new(),
            other,
            nobody,
            cpus: usize::try_from(loader::cpus()?)?,
            capacity,
            memory,
        })
    }

    /// All accounts by key, each summed over the CPUs. Those at slots that rest
    /// are among them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(&self) -> Result<StdMap<K, Box<A>>, MapError> {
        // By slot first: a walk over the hash may tell a key twice.
        let mut keys = StdMap::from([(0, self.other)]);
        for entry in &self.slots {
            let (key, slot) = entry?;
            keys.insert(slot, key.0);
        }
        keys.extend(self.resting.iter().map(|one| (one.slot, one.key)));
        let mut all: StdMap<K, Box<A>> = StdMap::with_capacity(keys.len());
        for (slot, key) in keys {
            let account = self.account(slot)?;
            match all.entry(key) {
                // Something closed after its cgroup was gone: it has a slot again.
                Entry::Occupied(mut there) => there.get_mut().add(&account),
                Entry::Vacant(room) => {
                    room.insert(account);
                }
            }
        }
        Ok(all)
    }

    fn account(&self, slot: u32) -> Result<Box<A>, MapError> {
        let mut sum = Box::new(A::ZERO);
        for value in &*self.accounts.get(&slot, 0)? {
            sum.add(&value.0);
        }
        Ok(sum)
    }

    /// Takes the slot of a key whose owner is gone, which then rests.
    ///
    /// # Errors
    /// What the kernel says, other than that it has none.
    pub fn retire(&mut self, key: K) -> Result<(), MapError> {
        let slot = match self.slots.get(&Plain(key), 0) {
            Ok(slot) => slot,
            Err(MapError::KeyNotFound) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.slots.remove(&Plain(key))?;
        self.owners.set(slot, Plain(self.nobody), 0)?;
        self.resting.push_back(Resting {
            key,
            slot,
            since: Instant::now(),
        });
        Ok(())
    }

    /// Frees the slots that have rested, and says what their keys came to.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release(&mut self) -> Result<Vec<(K, Box<A>)>, MapError> {
        let mut last = Vec::new();
        while let Some(resting) = self.resting.front() {
            if resting.since.elapsed() < REST {
                break;
            }
            let (key, slot) = (resting.key, resting.slot);
            let account = self.account(slot)?;
            let zero = PerCpuValues::try_from(vec![Plain(A::ZERO); self.cpus])?;
            self.accounts.set(slot, zero, 0)?;
            self.free.push(slot, 0)?;
            last.push((key, account));
            self.resting.pop_front();
        }
        Ok(last)
    }

    /// Entries that the map can hold, of which one is for what finds no room.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Kernel memory of the accounts, in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }
}
