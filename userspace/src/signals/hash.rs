//! Hashes of the probes, and the one way to walk them: whether each CPU has a
//! value of its own or all share one.

use std::{collections, hash::Hash as Hashed, marker::PhantomData, os::fd::AsFd as _};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{
        HashMap, IterableMap as _, Map, MapData, MapError, MapKeys, PerCpuHashMap, PerCpuValues,
    },
};

use super::maps::{Plain, Sum};
use crate::kernel::cost::map_memory;

/// How a hash keeps the value of a key.
pub trait Store<K: Copy + 'static>: TryFrom<Map, Error = MapError> {
    /// What is read of a key.
    type Value;
    /// The kernel's map.
    fn data(&self) -> &MapData;
    /// All keys.
    fn keys(&self) -> MapKeys<'_, Plain<K>>;
    /// What a key has.
    fn get(&self, key: &Plain<K>) -> Result<Box<Self::Value>, MapError>;
    /// Gives a key nothing but this.
    fn put(&mut self, key: K, value: Self::Value) -> anyhow::Result<()>;
    /// Takes a key out.
    fn delete(&mut self, key: &Plain<K>);
}

/// A value that all CPUs share.
impl<K: Copy + 'static, V: Copy + 'static> Store<K> for HashMap<MapData, Plain<K>, Plain<V>> {
    type Value = V;

    fn data(&self) -> &MapData {
        self.map()
    }

    fn keys(&self) -> MapKeys<'_, Plain<K>> {
        self.keys()
    }

    fn get(&self, key: &Plain<K>) -> Result<Box<V>, MapError> {
        self.get(key, 0).map(|value| Box::new(value.0))
    }

    fn put(&mut self, key: K, value: V) -> anyhow::Result<()> {
        Ok(self.insert(Plain(key), Plain(value), 0)?)
    }

    fn delete(&mut self, key: &Plain<K>) {
        let _ = self.remove(key);
    }
}

/// A value for each CPU: what is read is their sum.
impl<K: Copy + 'static, A: Sum> Store<K> for PerCpuHashMap<MapData, Plain<K>, Plain<A>> {
    type Value = A;

    fn data(&self) -> &MapData {
        self.map()
    }

    fn keys(&self) -> MapKeys<'_, Plain<K>> {
        self.keys()
    }

    fn get(&self, key: &Plain<K>) -> Result<Box<A>, MapError> {
        let mut sum = Box::new(A::ZERO);
        for value in &*self.get(key, 0)? {
            sum.add(&value.0);
        }
        Ok(sum)
    }

    fn put(&mut self, key: K, value: A) -> anyhow::Result<()> {
        let cpus = usize::try_from(crate::kernel::loader::cpus()?)?;
        let mut values = vec![Plain(A::ZERO); cpus];
        if let Some(first) = values.first_mut() {
            *first = Plain(value);
        }
        let values = PerCpuValues::try_from(values)?;
        Ok(self.insert(Plain(key), values, 0)?)
    }

    fn delete(&mut self, key: &Plain<K>) {
        let _ = self.remove(key);
    }
}

/// A hash and its size.
pub struct Hash<K, S> {
    map: S,
    capacity: u32,
    memory: u64,
    key: PhantomData<K>,
}

/// Accounts by key, one for each CPU.
pub type AccountMap<K, A> = Hash<K, PerCpuHashMap<MapData, Plain<K>, Plain<A>>>;
/// Values by key that all CPUs share.
pub type SharedMap<K, V> = Hash<K, HashMap<MapData, Plain<K>, Plain<V>>>;

impl<K: Copy + Eq + Hashed + 'static, S: Store<K>> Hash<K, S> {
    /// Takes the map from the loaded object.
    ///
    /// # Errors
    /// When there is no such map.
    pub(super) fn take_plain(ebpf: &mut Ebpf, name: &str) -> anyhow::Result<Self> {
        let map = ebpf
            .take_map(name)
            .with_context(|| format!("no map {name} in the object file"))?;
        let map = S::try_from(map).with_context(|| format!("map {name}"))?;
        let data = map.data();
        Ok(Self {
            capacity: data.info()?.max_entries(),
            // Its entries are all there from the start: the size never changes.
            memory: map_memory(&data.fd().as_fd())?,
            map,
            key: PhantomData,
        })
    }

    /// The same, and makes the account that takes what finds no room.
    ///
    /// # Errors
    /// When there is no such map.
    pub(super) fn take(ebpf: &mut Ebpf, name: &str, other: K) -> anyhow::Result<Self>
    where
        S::Value: Sum,
    {
        let mut taken = Self::take_plain(ebpf, name)?;
        taken.map.put(other, S::Value::ZERO)?;
        Ok(taken)
    }

    /// All values.
    ///
    /// # Errors
    /// What the kernel says to a look-up, other than that a key has just gone.
    pub fn read(&self) -> Result<collections::HashMap<K, Box<S::Value>>, MapError> {
        let mut all = collections::HashMap::new();
        for key in self.map.keys() {
            let key = key?;
            match self.map.get(&key) {
                Ok(value) => {
                    all.insert(key.0, value);
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Removes a key whose owner is gone, and says what it came to: a task
    /// that was still ending may have counted since it was read. `None`: it is
    /// gone already.
    pub fn remove(&mut self, key: K) -> Option<Box<S::Value>> {
        let key = Plain(key);
        let last = self.map.get(&key).ok();
        self.map.delete(&key);
        last
    }

    /// Keys that are there.
    pub(super) fn count(&self) -> usize {
        self.map.keys().flatten().count()
    }

    /// Entries that the map can hold.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Kernel memory in bytes.
    pub fn memory(&self) -> u64 {
        self.memory
    }
}
