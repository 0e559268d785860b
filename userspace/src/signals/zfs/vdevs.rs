//! What vdevs are called, as the probe found them.

use std::{collections::HashMap as StdMap, sync::Arc};

use anyhow::Context as _;
use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use kldtrace_abi::zfs::VdevNames as Raw;

use crate::{collect::zfs::datasets::UNKNOWN, signals::maps::Plain, words::until_zero};

/// The probe's map of names.
pub(super) struct NameMap(HashMap<MapData, u64, Plain<Raw>>);

impl NameMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let map = ebpf.take_map("ZFS_NAMES").context("no map ZFS_NAMES")?;
        Ok(Self(map.try_into()?))
    }
}

/// A vdev's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) pool: Arc<str>,
    pub(super) vdev: Arc<str>,
    /// "slog": it is there for the intent log only; "main": it is not.
    pub(super) log: &'static str,
}

/// Names by GUID.
#[derive(Default)]
pub(super) struct VdevNames(StdMap<u64, Named>);

impl VdevNames {
    /// Takes in what the probe has written, and makes it write anew: names
    /// change, as when a pool is imported under another.
    pub(super) fn learn(&mut self, map: &mut NameMap) -> Result<(), MapError> {
        let guids: Vec<u64> = map.0.keys().collect::<Result<_, _>>()?;
        for guid in guids {
            match map.0.get(&guid, 0) {
                Ok(raw) => {
                    self.0.insert(guid, named(&raw.0));
                    let _ = map.0.remove(&guid);
                }
                Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the name of a vdev was ever told.
    pub(super) fn know(&self, guid: u64) -> bool {
        self.0.contains_key(&guid)
    }

    /// The labels of a vdev.
    pub(super) fn of(&self, guid: u64) -> Named {
        self.0.get(&guid).cloned().unwrap_or_else(|| Named {
            pool: UNKNOWN.into(),
            vdev: format!("{guid}").into(),
            log: "main",
        })
    }
}

fn named(raw: &Raw) -> Named {
    Named {
        pool: until_zero(&raw.pool).into(),
        vdev: label(raw).into(),
        log: if raw.log == 1 { "slog" } else { "main" },
    }
}

/// The name of a vdev's row in `zpool status`, but for the parity of a raidz.
fn label(raw: &Raw) -> String {
    let path = until_zero(&raw.path);
    if !path.is_empty() {
        return shown(&path, raw.whole_disk == 1);
    }
    match until_zero(&raw.kind).as_str() {
        "root" => until_zero(&raw.pool),
        kind => format!("{kind}-{}", raw.number),
    }
}

/// A path as `zpool status` shows it (lib/libzfs/libzfs_pool.c:
/// `zpool_vdev_name`): the last part of a device's, without the partition that
/// ZFS itself has made; a file's as it is.
fn shown(path: &str, whole_disk: bool) -> String {
    let Some(device) = path.strip_prefix("/dev/") else {
        return path.to_owned();
    };
    let name = device.rsplit('/').next().unwrap_or(device);
    if !whole_disk {
        return name.to_owned();
    }
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    for separator in ["-part", "p"] {
        if let Some((disk, partition)) = name.rsplit_once(separator)
            && digits(partition)
            && (separator == "-part" || disk.ends_with(|c: char| c.is_ascii_digit()))
        {
            return disk.to_owned();
        }
    }
    name.trim_end_matches(|c: char| c.is_ascii_digit())
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_as_zpool_status_has_them() {
        for (path, whole, name) in [
            ("/dev/disk/by-id/ata-X_1-part1", true, "ata-X_1"),
            ("/dev/nvme0n1p1", true, "nvme0n1"),
            ("/dev/sda1", true, "sda"),
            ("/dev/sda1", false, "sda1"),
            ("/dev/mapper/luks-a", false, "luks-a"),
            ("/tmp/vdev0", false, "/tmp/vdev0"),
            ("", false, ""),
        ] {
            assert_eq!(shown(path, whole), name, "{path}");
        }
    }
}
