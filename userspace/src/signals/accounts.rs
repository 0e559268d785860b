//! Accounts of the probes that lie in an array, each at the slot of its key.
//!
//! The probes take a free slot for a key that is new (probes/src/slots.rs; for
//! the scheduler's, `cgroup_mkdir` does); this side reads the accounts by label,
//! and gives back the slots of those whose owner is gone.

use std::{
    collections::{HashMap as StdMap, VecDeque},
    hash::Hash,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, Queue},
};

use super::{
    maps::{Plain, Sum},
    own::MapState,
    table::{Entry, Table},
};
use crate::kernel::{cost::map_memory, loader};

/// A slot rests for so long before another key gets it: a program that had found
/// it before it was taken away may still be counting. Such a program runs for less
/// than a microsecond, but the host may take the CPU from under it; and the last
/// task of a removed cgroup may still have to leave the CPU for good.
const REST: Duration = Duration::from_millis(250);

/// A slot whose key's owner is gone, and the labels that it had: another may have
/// the key by now, or its name be forgotten.
struct Resting<L> {
    slot: u32,
    labels: L,
    since: Instant,
}

/// The accounts, the slots by key, their owners, and the slots that are free.
pub struct SlotAccounts<K: Copy + 'static, A: Copy + 'static, L> {
    accounts: PerCpuArray<MapData, Plain<A>>,
    slots: HashMap<MapData, Plain<K>, u32>,
    free: Queue<MapData, u32>,
    /// The keys by slot, and the one that nobody has; where the probes want them.
    owners: Option<(Array<MapData, Plain<K>>, K)>,
    /// What the probes remember is good while this number is the same; where they do.
    generation: Option<(Array<MapData, u32>, u32)>,
    resting: VecDeque<Resting<L>>,
    /// Slots that are nobody's, and go to the free ones next.
    nobodys: Vec<u32>,
    table: Table<L, A>,
    cpus: usize,
    /// Slots in use when the accounts were last read.
    entries: u64,
    capacity: u32,
    memory: u64,
}

impl<K: Copy + 'static, A: Sum, L: Clone + Eq + Hash> SlotAccounts<K, A, L> {
    /// Takes the maps from the loaded object; all slots are free. `nobody` is the
    /// key to write where nobody owns a slot; `None`: there is no map of owners.
    ///
    /// # Errors
    /// When there are no such maps, or the kernel refuses them.
    pub fn take(
        ebpf: &mut Ebpf,
        name: &str,
        nobody: Option<K>,
        table: Table<L, A>,
    ) -> anyhow::Result<Self> {
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
        // Slot 0 takes what has none.
        for slot in 1..capacity {
            free.push(slot, 0)?;
        }
        let mut owners = None;
        if let Some(nobody) = nobody {
            let mut map: Array<_, Plain<K>> = take(&format!("{name}_OWNERS"))?.try_into()?;
            for slot in 0..capacity {
                map.set(slot, Plain(nobody), 0)?;
            }
            owners = Some((map, nobody));
        }
        Ok(Self {
            accounts: accounts.try_into()?,
            slots: take(&format!("{name}_SLOTS"))?.try_into()?,
            free,
            owners,
            generation: None,
            resting: VecDeque::new(),
            nobodys: Vec::new(),
            table,
            cpus: usize::try_from(loader::cpus()?)?,
            entries: 0,
            capacity,
            memory,
        })
    }

    /// With the number that says how long what the probes remember of these accounts is
    /// good, of the loaded object: its only global that is to be written, and that number
    /// at first.
    ///
    /// # Errors
    /// When there is no such number.
    pub fn with_generation(mut self, ebpf: &mut Ebpf, first: u32) -> anyhow::Result<Self> {
        let map = ebpf
            .take_map(".data")
            .context("no map .data in the object file")?;
        self.generation = Some((map.try_into()?, first));
        Ok(self)
    }

    /// Gives slots to keys that have none, as long as there are free ones; whether
    /// each has one now. No owner is written: for accounts that have none.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn assign(&mut self, keys: impl Iterator<Item = K>) -> Result<bool, MapError> {
        for key in keys {
            if self.slot(key)?.is_some() {
                continue;
            }
            let Ok(slot) = self.free.pop(0) else {
                return Ok(false);
            };
            if let Err(error) = self.slots.insert(Plain(key), slot, 0) {
                self.nobodys.push(slot);
                return Err(error);
            }
        }
        Ok(true)
    }

    fn slot(&self, key: K) -> Result<Option<u32>, MapError> {
        match self.slots.get(&Plain(key), 0) {
            Ok(slot) => Ok(Some(slot)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The keys that have slots.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn keys(&self) -> Result<StdMap<u32, K>, MapError> {
        // By slot: a walk over the hash may tell a key twice.
        let slots = self.slots.iter();
        slots
            .map(|one| one.map(|(key, slot)| (slot, key.0)))
            .collect()
    }

    /// The accounts of these keys, and those at slots that rest, summed over the
    /// CPUs and by label. `labels` says whether a key's owner is gone, too: then
    /// its slot rests from now on.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn read(
        &mut self,
        keys: StdMap<u32, K>,
        mut labels: impl FnMut(K) -> (L, bool),
    ) -> Result<StdMap<L, Box<A>>, MapError> {
        let mut slots = vec![(0, self.table.other().clone())];
        for (slot, key) in keys {
            let (labels, gone) = labels(key);
            if gone {
                self.retire(key, labels)?;
            } else {
                slots.push((slot, labels));
            }
        }
        let resting = self.resting.iter();
        slots.extend(resting.map(|one| (one.slot, one.labels.clone())));
        self.entries = slots.len() as u64;
        let entries = slots.into_iter().map(|(slot, labels)| {
            Ok(Entry {
                labels,
                account: self.account(slot)?,
                gone: false,
            })
        });
        let entries = entries.collect::<Result<Vec<_>, MapError>>()?;
        Ok(self.table.sum(entries))
    }

    fn account(&self, slot: u32) -> Result<Box<A>, MapError> {
        let mut sum = Box::new(A::ZERO);
        for value in &*self.accounts.get(&slot, 0)? {
            sum.add(&value.0);
        }
        Ok(sum)
    }

    /// Takes the slot of a key whose owner is gone, if it has one. It rests then,
    /// and what is counted there is still read.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn retire(&mut self, key: K, labels: L) -> Result<(), MapError> {
        let Some(slot) = self.slot(key)? else {
            return Ok(());
        };
        self.disown(slot)?;
        self.slots.remove(&Plain(key))?;
        self.resting.push_back(Resting {
            slot,
            labels,
            since: Instant::now(),
        });
        Ok(())
    }

    /// Takes a slot away from its key.
    fn disown(&mut self, slot: u32) -> Result<(), MapError> {
        if let Some((owners, nobody)) = &mut self.owners {
            owners.set(slot, Plain(*nobody), 0)?;
        }
        if let Some((map, generation)) = &mut self.generation {
            *generation = generation.wrapping_add(1);
            map.set(0, *generation, 0)?;
        }
        Ok(())
    }

    /// Gives the sums by label for others: those of accounts whose maps come and
    /// go outlive them.
    pub fn exchange(&mut self, table: &mut Table<L, A>) {
        std::mem::swap(&mut self.table, table);
    }

    /// Keeps in the sums of their labels what all slots that rest came to, and what
    /// had none: nothing is read of these accounts any more.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn close(&mut self) -> Result<(), MapError> {
        let other = self.account(0)?;
        self.table.keep(self.table.other().clone(), &other);
        while let Some(resting) = self.resting.pop_front() {
            let account = self.account(resting.slot)?;
            self.table.keep(resting.labels, &account);
        }
        Ok(())
    }

    /// Frees the slots that have rested, and keeps what they came to in the sums
    /// of their labels; whether there were any.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release(&mut self) -> Result<bool, MapError> {
        while let Some(resting) = self.resting.front()
            && resting.since.elapsed() >= REST
        {
            let slot = resting.slot;
            // A program that had just taken it may have written its owner after
            // it was taken away again.
            self.disown(slot)?;
            let account = self.account(slot)?;
            let zero = PerCpuValues::try_from(vec![Plain(A::ZERO); self.cpus])?;
            self.accounts.set(slot, zero, 0)?;
            if let Some(resting) = self.resting.pop_front() {
                self.table.keep(resting.labels, &account);
            }
            self.nobodys.push(slot);
        }
        let any = !self.nobodys.is_empty();
        // The kernel may refuse one whose lock it cannot have: it stays here.
        while let Some(slot) = self.nobodys.last() {
            self.free.push(slot, 0)?;
            self.nobodys.pop();
        }
        Ok(any)
    }

    /// How full the map is, of which one entry is for what finds no room.
    pub fn state(&self, name: &'static str) -> MapState {
        MapState {
            name,
            entries: self.entries,
            capacity: self.capacity.into(),
            memory: self.memory,
        }
    }

    /// Label sets without series of their own.
    pub fn folded(&self) -> u64 {
        self.table.folded
    }
}
