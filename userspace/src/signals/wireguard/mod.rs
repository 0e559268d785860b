//! WireGuard: what its probes count, by peer, and what the kernel counts
//! itself.

pub mod accounts;
mod events;
mod maps;
pub mod names;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use aya::maps::{MapData, RingBuf};
use kldtrace_abi::{
    loss::Loss,
    wireguard::{PeerKey, Seen},
};
use kldtrace_exporters::model::{Event, Family};

use self::{
    accounts::{InterfaceAccount, PeerAccount},
    maps::Maps,
    names::Names,
};
use super::{
    clock::{Clock, monotonic},
    families::from_accounts,
    maps::Sum as _,
    module::Module,
    own::MapState,
    table::{Entry, Table},
};
use crate::{
    catalogue::{Numbers, Signal},
    collect::{
        listen::namespaces::Finder,
        wireguard::{self as collect, Interfaces},
    },
    kernel::{
        loader::{self, Availability, Loaded, Options},
        object::{ObjectFile, WIREGUARD},
    },
};

/// The program that looks at peers.
const WALK: &str = "wg_peers";
/// The signal that needs an address of the kernel.
const REFUSED: &str = "wireguard.refused_packets";

/// What is attached.
struct Attached {
    loaded: Loaded,
    maps: Maps,
    events: RingBuf<MapData>,
    walks: bool,
}

/// What the kernel has now.
struct Look {
    peers: Vec<Seen>,
    interfaces: Interfaces,
    /// Whether nothing is hidden: what is not there is gone.
    complete: bool,
}

/// The module wireguard.
pub struct Wireguard {
    names: Arc<Names>,
    attached: Option<Attached>,
    finder: Finder,
    peers: Table<names::Peer, PeerAccount>,
    interfaces: Table<names::Interface, InterfaceAccount>,
    /// Bytes of each peer as they were last shown: a peer that is being
    /// removed is for a moment neither alive nor counted as dead.
    shown: HashMap<names::Peer, [u64; 2]>,
    /// Interfaces of the module as they were last read.
    devices: Interfaces,
    entries: [usize; 2],
    /// What was lost in probes that have been let go.
    lost: Vec<(Loss, u64)>,
}

impl Wireguard {
    /// Nothing is attached yet. `series` is the limit of label sets.
    pub fn new(names: Arc<Names>, series: usize) -> Self {
        let (other, plane, _) = names::other();
        Self {
            names,
            attached: None,
            finder: Finder::default(),
            peers: Table::new(series, names::other()),
            interfaces: Table::new(series, (other, plane)),
            shown: HashMap::new(),
            devices: Interfaces::new(),
            entries: [0; 2],
            lost: Vec::new(),
        }
    }

    /// Reads what the kernel has, and forgets what it no longer has.
    fn look(&mut self) -> anyhow::Result<Look> {
        let Some(attached) = &mut self.attached else {
            anyhow::bail!("nothing is attached");
        };
        let began = monotonic();
        let (interfaces, complete) = collect::interfaces(&mut self.finder)?;
        let mut peers = Vec::new();
        for (address, seen) in attached.maps.peers.read()? {
            if seen.at >= began {
                peers.push(*seen);
            } else {
                attached.maps.peers.remove(address);
            }
        }
        self.entries[1] = peers.len();
        Ok(Look {
            peers,
            interfaces,
            complete,
        })
    }

    fn read_peers(&mut self) -> anyhow::Result<HashMap<names::Peer, Box<PeerAccount>>> {
        let Some(attached) = &self.attached else {
            return Ok(HashMap::new());
        };
        // Before the look: what is counted for a peer after it was removed
        // must not be taken for what lives.
        let counted = attached.maps.accounts.read()?;
        let walks = attached.walks;
        self.entries[0] = counted.len();
        let look = match self.look() {
            Ok(look) => Some(look),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(%error, "cannot look at the peers of WireGuard");
                None
            }
        };
        let mut entries = Vec::with_capacity(counted.len());
        let there = look.as_ref().filter(|look| look.complete).map(There::of);
        for (key, account) in counted {
            let gone = there.as_ref().is_some_and(|there| there.lacks(&key, walks));
            let last = match &mut self.attached {
                Some(attached) if gone => attached.maps.accounts.remove(key),
                _ => None,
            };
            entries.push(Entry {
                labels: self.names.account(&key),
                account: Box::new(PeerAccount {
                    counted: *last.unwrap_or(account),
                    last_handshake: 0,
                }),
                gone,
            });
        }
        if let Some(look) = look {
            for seen in &look.peers {
                let mut account = Box::new(PeerAccount::ZERO);
                account.counted.received_bytes = seen.received_bytes;
                account.counted.sent_bytes = seen.sent_bytes;
                account.last_handshake = seen.last_handshake;
                entries.push(Entry {
                    labels: self.names.account(&seen.key),
                    account,
                    gone: false,
                });
            }
            self.keep_devices(look);
        }
        let mut sums = self.peers.sum(entries);
        self.shown.retain(|labels, _| sums.contains_key(labels));
        for (labels, sum) in &mut sums {
            let shown = self.shown.entry(labels.clone()).or_default();
            let [received, sent] = shown;
            *received = (*received).max(sum.counted.received_bytes);
            *sent = (*sent).max(sum.counted.sent_bytes);
            sum.counted.received_bytes = *received;
            sum.counted.sent_bytes = *sent;
        }
        Ok(sums)
    }

    /// Takes in the counters of the interfaces that have peers. Those of one
    /// that is gone, or whose name another has, stay in the sums.
    fn keep_devices(&mut self, look: Look) {
        let ours: HashSet<(u64, String)> = look
            .peers
            .iter()
            .map(|seen| (seen.namespace, names::interface(&seen.key)))
            .collect();
        // Without its last peer it is still the same interface.
        let now: Interfaces = look
            .interfaces
            .into_iter()
            .filter(|(device, _)| ours.contains(device) || self.devices.contains_key(device))
            .collect();
        for (device, before) in std::mem::take(&mut self.devices) {
            match now.get(&device) {
                Some(account) if !account.behind(&before) => {}
                None if !look.complete => {
                    // Out of sight: as it was.
                    self.devices.insert(device, before);
                }
                _ => self
                    .interfaces
                    .keep(self.names.interface(&device.1), &before),
            }
        }
        self.devices.extend(now);
    }

    fn read_interfaces(&mut self) -> HashMap<names::Interface, Box<InterfaceAccount>> {
        let names = &self.names;
        let entries = self.devices.iter().map(|((_, name), account)| Entry {
            labels: names.interface(name),
            account: Box::new(*account),
            gone: false,
        });
        self.interfaces.sum(entries)
    }
}

/// Who may own an account.
struct There<'a> {
    peers: HashSet<PeerKey>,
    interfaces: HashSet<&'a str>,
}

impl<'a> There<'a> {
    fn of(look: &'a Look) -> Self {
        let interfaces = look.interfaces.keys();
        Self {
            peers: look.peers.iter().map(|seen| seen.key).collect(),
            interfaces: interfaces.map(|(_, name)| name.as_str()).collect(),
        }
    }

    /// Whether the owner of an account is gone. Without the walk over peers
    /// only an interface is known to be.
    fn lacks(&self, key: &PeerKey, walks: bool) -> bool {
        if *key == PeerKey::OTHER {
            return false;
        }
        if walks && key.peer != [0; 4] {
            return !self.peers.contains(key);
        }
        !self.interfaces.contains(names::interface(key).as_str())
    }
}

impl Module for Wireguard {
    fn object(&self) -> &'static ObjectFile {
        &WIREGUARD
    }

    fn attach(&mut self, wanted: &[&'static Signal], options: &Options) -> anyhow::Result<()> {
        let mut options = options.clone();
        let mut wanted = wanted.to_vec();
        let mut without = None;
        if let Some(at) = wanted.iter().position(|signal| signal.name == REFUSED) {
            match collect::address("__per_cpu_offset") {
                Ok(address) => options.settings.push(("PER_CPU_OFFSET", address)),
                Err(error) => without = Some((wanted.remove(at), format!("{error:#}"))),
            }
        }
        let (mut loaded, maps) = loader::load(&WIREGUARD, &wanted, &options, Maps::take)?;
        if let Some((signal, reason)) = without {
            loaded.signals.push((signal, Availability::Absent(reason)));
        }
        let events = maps::events(&mut loaded.ebpf)?;
        self.attached = Some(Attached {
            walks: loaded.programs().contains(&WALK),
            loaded,
            maps,
            events,
        });
        Ok(())
    }

    fn detach(&mut self) {
        let Some(attached) = self.attached.take() else {
            return;
        };
        for (key, counted) in attached.maps.accounts.read().unwrap_or_default() {
            let account = PeerAccount {
                counted: *counted,
                last_handshake: 0,
            };
            self.peers.keep(self.names.account(&key), &account);
        }
        for (device, account) in std::mem::take(&mut self.devices) {
            let labels = self.names.interface(&device.1);
            self.interfaces.keep(labels, &account);
        }
        for (loss, count) in attached.maps.losses.read().unwrap_or_default() {
            self.lost.push((loss, count));
        }
        self.entries = [0; 2];
    }

    fn loaded(&self) -> Option<&Loaded> {
        self.attached.as_ref().map(|attached| &attached.loaded)
    }

    fn ring(&self) -> Option<&RingBuf<MapData>> {
        self.attached.as_ref().map(|attached| &attached.events)
    }

    fn loaded_mut(&mut self) -> Option<&mut Loaded> {
        self.attached.as_mut().map(|attached| &mut attached.loaded)
    }

    fn drain(&mut self, _unit: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<Vec<Event>> {
        let mut told = Vec::new();
        if let Some(attached) = &mut self.attached {
            let clock = Clock::now();
            while let Some(bytes) = attached.events.next() {
                told.extend(events::event(&bytes, &self.names, &clock));
            }
        }
        Ok(told)
    }

    fn families(&mut self, signals: &[&'static Signal]) -> anyhow::Result<Vec<Family>> {
        let peers = self.read_peers()?;
        let interfaces = self.read_interfaces();
        Ok(signals
            .iter()
            .filter_map(|signal| {
                Some(match signal.numbers {
                    Numbers::Wireguard(numbers) => from_accounts(
                        signal,
                        &peers,
                        |(interface, plane, peer)| {
                            vec![interface.clone(), plane.clone(), peer.clone()]
                        },
                        |_, account, emit| numbers(account, emit),
                    ),
                    Numbers::WireguardInterface(numbers) => from_accounts(
                        signal,
                        &interfaces,
                        |(interface, plane)| vec![interface.clone(), plane.clone()],
                        |_, account, emit| numbers(account, emit),
                    ),
                    _ => return None,
                })
            })
            .collect())
    }

    fn map_states(&self) -> Vec<MapState> {
        let Some(Attached { maps, .. }) = &self.attached else {
            return Vec::new();
        };
        let map = |name, entries: usize, capacity: u32, memory| MapState {
            name,
            entries: entries as u64,
            capacity: capacity.into(),
            memory,
        };
        let [accounts, peers] = self.entries;
        let (of_accounts, of_peers, started) = (&maps.accounts, &maps.peers, &maps.handshakes);
        vec![
            map(
                "wireguard",
                accounts,
                of_accounts.capacity(),
                of_accounts.memory(),
            ),
            map(
                "wireguard_peers",
                peers,
                of_peers.capacity(),
                of_peers.memory(),
            ),
            map(
                "wireguard_handshakes",
                started.count(),
                started.capacity(),
                started.memory(),
            ),
        ]
    }

    fn losses(&self) -> Vec<(&'static str, u64)> {
        let now = self.attached.as_ref();
        let now = now.and_then(|attached| attached.maps.losses.read().ok());
        let all = self.lost.iter().copied().chain(now.unwrap_or_default());
        all.map(|(loss, count)| (loss.as_str(), count)).collect()
    }

    fn folded(&self) -> Vec<(&'static str, u64)> {
        vec![("wireguard", self.peers.folded + self.interfaces.folded)]
    }
}
