//! The maps of the WireGuard probes.

use std::os::fd::AsFd as _;

use anyhow::{Context as _, bail};
use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError, RingBuf},
};
use kldtrace_abi::wireguard::{Peer, PeerKey, Seen, Start};

use super::accounts::PeerAccount;
use crate::{
    kernel::cost::map_memory,
    signals::{
        maps::{Losses, Plain, Sum as _},
        own::MapState,
    },
};

/// A hash that all CPUs share, and its size.
pub(super) struct Shared<K: Copy + 'static, V: Copy + 'static> {
    map: HashMap<MapData, Plain<K>, Plain<V>>,
    name: &'static str,
    capacity: u32,
    memory: u64,
}

impl<K: Copy + 'static, V: Copy + 'static> Shared<K, V> {
    fn take(ebpf: &mut Ebpf, map: &'static str, name: &'static str) -> anyhow::Result<Self> {
        let map = ebpf
            .take_map(map)
            .with_context(|| format!("no map {map} in the object file"))?;
        let Map::HashMap(data) = &map else {
            bail!("map {name} is no hash");
        };
        Ok(Self {
            name,
            capacity: data.info()?.max_entries(),
            memory: map_memory(&data.fd().as_fd())?,
            map: map.try_into()?,
        })
    }

    /// Everything in it.
    pub(super) fn read(&self) -> Result<Vec<(K, Box<V>)>, MapError> {
        let mut all = Vec::new();
        for key in self.map.keys() {
            let key = key?;
            match self.map.get(&key, 0) {
                Ok(value) => all.push((key.0, Box::new(value.0))),
                // It has just gone.
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Takes an entry out, and says what it was at last.
    pub(super) fn remove(&mut self, key: K) -> Option<Box<V>> {
        let last = self.map.get(&Plain(key), 0).ok();
        let _ = self.map.remove(&Plain(key));
        last.map(|value| Box::new(value.0))
    }

    pub(super) fn state(&self, entries: usize) -> MapState {
        MapState {
            name: self.name,
            entries: entries as u64,
            capacity: u64::from(self.capacity),
            memory: self.memory,
        }
    }
}

/// All of them.
pub(super) struct Maps {
    pub(super) accounts: Shared<PeerKey, Peer>,
    pub(super) peers: Shared<u64, Seen>,
    /// Handshakes under way: only its fullness is of interest here.
    handshakes: Shared<u64, Start>,
    pub(super) losses: Losses,
}

impl Maps {
    /// Takes the maps out of the loaded object, and makes the account of what
    /// finds no room.
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let mut maps = Self {
            accounts: Shared::take(ebpf, "WIREGUARD", "wireguard")?,
            peers: Shared::take(ebpf, "WIREGUARD_PEERS", "wireguard_peers")?,
            handshakes: Shared::take(ebpf, "HANDSHAKES", "wireguard_handshakes")?,
            losses: Losses::take(ebpf)?,
        };
        maps.accounts
            .map
            .insert(Plain(PeerKey::OTHER), Plain(PeerAccount::ZERO.counted), 0)?;
        Ok(maps)
    }

    /// How full the map of handshakes under way is.
    pub(super) fn under_way(&self) -> MapState {
        let entries = self.handshakes.map.keys().flatten().count();
        self.handshakes.state(entries)
    }
}

/// The ring buffer of events.
pub(super) fn events(ebpf: &mut Ebpf) -> anyhow::Result<RingBuf<MapData>> {
    let map = ebpf.take_map("EVENTS").context("no map EVENTS")?;
    Ok(map.try_into()?)
}
