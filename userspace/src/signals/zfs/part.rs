//! The accounts of one map while it is attached, and their sums, which outlive
//! it.

use std::{collections::HashMap, hash::Hash};

use aya::maps::MapError;

use crate::signals::{hash::AccountMap, maps::Sum, node::sum, own::MapState, table::Table};

/// One of them.
pub(super) struct Part<K, A, L>
where
    K: Copy + 'static,
    A: Copy + 'static,
{
    name: &'static str,
    map: Option<AccountMap<K, A>>,
    table: Table<L, A>,
    /// Entries of the map when it was last read.
    entries: u64,
}

impl<K, A, L> Part<K, A, L>
where
    K: Copy + Eq + Hash + 'static,
    A: Sum,
    L: Clone + Eq + Hash,
{
    /// `name`: of the map, for people; `series`: label sets with series of
    /// their own; `other`: the labels of the rest.
    pub(super) fn new(name: &'static str, series: usize, other: L) -> Self {
        Self {
            name,
            map: None,
            table: Table::new(series, other),
            entries: 0,
        }
    }

    pub(super) fn attach(&mut self, map: AccountMap<K, A>) {
        self.map = Some(map);
    }

    pub(super) fn detach(&mut self) {
        self.map = None;
    }

    /// All accounts by key; none where nothing is attached.
    pub(super) fn read(&mut self) -> Result<HashMap<K, Box<A>>, MapError> {
        let read = self.map.as_ref().map(AccountMap::read).transpose()?;
        let read = read.unwrap_or_default();
        self.entries = read.len() as u64;
        Ok(read)
    }

    /// Their sums by label. `labels` also says whether what a key stands for
    /// is gone.
    pub(super) fn sum(
        &mut self,
        accounts: HashMap<K, Box<A>>,
        labels: impl FnMut(&K) -> (L, bool),
    ) -> HashMap<L, Box<A>> {
        match &mut self.map {
            Some(map) => sum(map, &mut self.table, accounts, labels),
            None => HashMap::new(),
        }
    }

    /// How full the map is; `None` where nothing is attached.
    pub(super) fn state(&self) -> Option<MapState> {
        let map = self.map.as_ref()?;
        Some(MapState {
            name: self.name,
            entries: self.entries,
            capacity: u64::from(map.capacity()),
            memory: map.memory(),
        })
    }

    /// Label sets without series of their own.
    pub(super) fn folded(&self) -> u64 {
        self.table.folded
    }
}
