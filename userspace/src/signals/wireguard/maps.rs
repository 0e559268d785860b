//! The maps of the WireGuard probes.

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use kldtrace_abi::wireguard::{Peer, PeerKey, Seen, Start};

use crate::signals::{hash::SharedMap, maps::Losses};

/// All of them. Handshakes are rare: all CPUs share what is counted of them.
pub(super) struct Maps {
    pub(super) accounts: SharedMap<PeerKey, Peer>,
    pub(super) peers: SharedMap<u64, Seen>,
    /// Handshakes under way: only its fullness is of interest here.
    pub(super) handshakes: SharedMap<u64, Start>,
    pub(super) losses: Losses,
}

impl Maps {
    /// Takes the maps out of the loaded object, and makes the account of what
    /// finds no room.
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            accounts: SharedMap::take(ebpf, "WIREGUARD", PeerKey::OTHER)?,
            peers: SharedMap::take_plain(ebpf, "WIREGUARD_PEERS")?,
            handshakes: SharedMap::take_plain(ebpf, "HANDSHAKES")?,
            losses: Losses::take(ebpf)?,
        })
    }
}

/// The ring buffer of events.
pub(super) fn events(ebpf: &mut Ebpf) -> anyhow::Result<RingBuf<MapData>> {
    let map = ebpf.take_map("EVENTS").context("no map EVENTS")?;
    Ok(map.try_into()?)
}
