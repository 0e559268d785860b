//! OpenZFS: what it tells of itself in /proc, and what its datasets are
//! called. All of it is read when asked for; nothing of it needs a probe.

pub mod datasets;
pub mod kstat;
pub mod mounted;
pub mod objsets;
pub mod txgs;
pub mod zvols;

use std::{collections::BTreeMap, fs, path::PathBuf};

use kstat::Named;
use txgs::Txgs;

/// Where OpenZFS tells of itself (module/os/linux/spl/spl-kstat.c).
pub const KSTAT: &str = "/proc/spl/kstat/zfs";

/// What was read at once.
#[derive(Debug, Default)]
pub struct State {
    /// `arcstats`: the ARC and the L2ARC.
    pub arc: Named,
    /// `zil`: the intent logs of all pools.
    pub zil: Named,
    /// `dmu_tx`: how transactions were let in.
    pub dmu_tx: Named,
    /// The state of each pool, as `zpool status` names it.
    pub pools: BTreeMap<String, String>,
}

/// The reader of /proc/spl.
pub struct Zfs {
    root: PathBuf,
    /// Transaction groups, by pool.
    pub txgs: Txgs,
}

impl Default for Zfs {
    fn default() -> Self {
        Self::below(KSTAT.into())
    }
}

impl Zfs {
    /// Reads below another folder than [`KSTAT`].
    pub fn below(root: PathBuf) -> Self {
        Self {
            root,
            txgs: Txgs::default(),
        }
    }

    /// The imported pools.
    pub fn pools(&self) -> Vec<String> {
        let Ok(folder) = fs::read_dir(&self.root) else {
            return Vec::new();
        };
        let pools = folder.filter_map(Result::ok).filter(|entry| {
            // A pool is a folder with a state; other folders have none.
            entry.path().join("state").is_file()
        });
        let mut pools: Vec<_> = pools
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        pools.sort();
        pools
    }

    /// Everything as it is now; what cannot be read is empty.
    pub fn state(&self) -> State {
        let named = |name| Named::read(&self.root.join(name)).unwrap_or_default();
        let state = |pool: &String| {
            let text = fs::read_to_string(self.root.join(pool).join("state")).ok()?;
            Some((pool.clone(), text.trim().to_owned()))
        };
        State {
            arc: named("arcstats"),
            zil: named("zil"),
            dmu_tx: named("dmu_tx"),
            pools: self.pools().iter().filter_map(state).collect(),
        }
    }

    /// Takes in the transaction groups that have finished since the last call.
    /// A pool remembers `zfs_txg_history` of them, 100 by default, so it wants
    /// to be asked every few seconds.
    pub fn follow(&mut self) {
        let pools = self.pools();
        for pool in &pools {
            if let Ok(text) = fs::read_to_string(self.root.join(pool).join("txgs")) {
                self.txgs.take(pool, &text);
            }
        }
        self.txgs.keep(&pools);
    }
}
