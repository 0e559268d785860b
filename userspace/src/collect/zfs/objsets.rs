//! Object sets to the names of their datasets.
//!
//! Each has a table `POOL/objset-0xID` with its `dataset_name`
//! (module/zfs/dataset_kstats.c), also when it is not mounted, and zvols too.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{datasets::UNKNOWN, kstat::Named};

/// Names older than this are read again, as a dataset may be renamed.
const FRESH: Duration = Duration::from_secs(30);

/// A pool and an object set of it.
pub type Key = (Arc<str>, u64);

/// Names by pool and object set.
#[derive(Default)]
pub struct Objsets {
    names: HashMap<Key, Arc<str>>,
    unknown: HashSet<Key>,
    read: Option<Instant>,
}

impl Objsets {
    /// Prepares to be asked for these: reads the tables below `root` if one is
    /// new or the names are old.
    pub fn want(&mut self, root: &Path, pools: &[String], wanted: &[Key]) {
        let old = self.read.is_none_or(|read| read.elapsed() > FRESH);
        let knows = |one| self.names.contains_key(one) || self.unknown.contains(one);
        if wanted.is_empty() || !old && wanted.iter().all(knows) {
            return;
        }
        self.names = pools.iter().flat_map(|pool| names(root, pool)).collect();
        self.unknown = wanted
            .iter()
            .filter(|one| !self.names.contains_key(one))
            .cloned()
            .collect();
        self.read = Some(Instant::now());
    }

    /// The dataset's name.
    pub fn name(&self, pool: &Arc<str>, objset: u64) -> Arc<str> {
        let known = self.names.get(&(pool.clone(), objset));
        known.cloned().unwrap_or_else(|| UNKNOWN.into())
    }
}

fn names(root: &Path, pool: &str) -> Vec<(Key, Arc<str>)> {
    let label: Arc<str> = pool.into();
    let Ok(folder) = fs::read_dir(root.join(pool)) else {
        return Vec::new();
    };
    folder
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = entry.file_name().into_string().ok()?;
            let id = u64::from_str_radix(name.strip_prefix("objset-0x")?, 16).ok()?;
            let table = Named::read(&entry.path()).ok()?;
            let dataset = table.text("dataset_name")?.into();
            Some(((label.clone(), id), dataset))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_once_until_a_new_one_is_wanted() {
        let root = tempfile::tempdir().unwrap();
        let pool: Arc<str> = "tank".into();
        let write = |id: u64, name: &str| {
            fs::create_dir_all(root.path().join("tank")).unwrap();
            let text = format!("1 1 0x01\nname type data\ndataset_name 7 {name}\n");
            fs::write(root.path().join(format!("tank/objset-0x{id:x}")), text).unwrap();
        };
        let pools = ["tank".to_owned()];
        write(0x36, "tank/a");
        let mut objsets = Objsets::default();
        objsets.want(root.path(), &pools, &[(pool.clone(), 0x36)]);
        assert_eq!(&*objsets.name(&pool, 0x36), "tank/a");
        assert_eq!(&*objsets.name(&pool, 0x99), UNKNOWN);
        write(0x99, "tank/b");
        objsets.want(
            root.path(),
            &pools,
            &[(pool.clone(), 0x36), (pool.clone(), 0x99)],
        );
        assert_eq!(&*objsets.name(&pool, 0x99), "tank/b");
    }
}
