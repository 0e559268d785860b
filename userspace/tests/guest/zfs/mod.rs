//! OpenZFS: each signal against what OpenZFS itself says, or against a fault
//! that `zinject` has put in.

mod digests;
mod disk;
mod explain;
mod faults;
mod ops;
mod stages;
mod state;
mod taskq;
mod together;
mod trampolines;
mod trouble;
mod vdev;
mod zvol;

use std::{
    fs,
    path::{Path, PathBuf},
};

use kldtrace::kernel::loader::Options;

use super::{
    common::{Probes, sh},
    machine::module,
    shared::{Lent, Shared},
};

/// A pool on files, with one dataset; gone when dropped.
pub struct Pool {
    /// Its name.
    pub name: String,
    /// Paths of its vdevs.
    pub vdevs: Vec<String>,
}

impl Pool {
    /// Makes one with so many files, each a vdev of its own, and more words
    /// for `zpool create`; `None`, and a line that says so, without ZFS.
    pub fn make(name: &str, vdevs: usize, more: &str) -> Option<Self> {
        if !module("zfs") {
            return None;
        }
        let short: String = name.chars().take(20).collect();
        let vdevs: Vec<_> = (0..vdevs).map(|i| format!("/tmp/{short}-{i}")).collect();
        for vdev in &vdevs {
            sh(&format!("rm -f {vdev}; truncate -s 192M {vdev}"));
        }
        Some(Self::create(name, vdevs, more))
    }

    /// Makes one on disks that are there.
    pub fn on(name: &str, disks: &[String]) -> Self {
        Self::create(name, disks.to_vec(), "")
    }

    fn create(name: &str, vdevs: Vec<String>, more: &str) -> Self {
        // Nothing that a test has not asked for: no sync after 5 seconds.
        fs::write("/sys/module/zfs/parameters/zfs_txg_timeout", "3600").unwrap();
        sh(&format!(
            "zpool create -f -O atime=off {name} {} {more} && zfs create {name}/data",
            vdevs.join(" ")
        ));
        Self {
            name: name.to_owned(),
            vdevs,
        }
    }

    /// Name of the dataset.
    pub fn dataset(&self) -> String {
        format!("{}/data", self.name)
    }

    /// A path in the dataset.
    pub fn file(&self, name: &str) -> PathBuf {
        Path::new("/").join(self.dataset()).join(name)
    }

    /// A number of the dataset's own table.
    pub fn objset(&self, dataset: &str, number: &str) -> u64 {
        let folder = Path::new("/proc/spl/kstat/zfs").join(&self.name);
        let tables = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for table in tables.filter(|path| path.to_string_lossy().contains("/objset-")) {
            let text = fs::read_to_string(table).unwrap();
            let column = |name: &str| {
                let line = text
                    .lines()
                    .find(|line| line.split_whitespace().next() == Some(name));
                line.map(|line| line.split_whitespace().last().unwrap().to_owned())
            };
            if column("dataset_name").as_deref() == Some(dataset) {
                return column(number).unwrap().parse().unwrap();
            }
        }
        panic!("no table of {dataset}");
    }

    /// Its transaction groups that have ended, as far as it remembers them: how
    /// many, and the nanoseconds that their syncs took together.
    pub fn groups(&self) -> (u64, u64) {
        let text = fs::read_to_string(format!("/proc/spl/kstat/zfs/{}/txgs", self.name)).unwrap();
        let rows = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>());
        let rows: Vec<_> = rows.filter(|row| row.get(2) == Some(&"C")).collect();
        let times = rows.iter().map(|row| row.last().unwrap().parse::<u64>());
        (rows.len() as u64, times.map(Result::unwrap).sum())
    }

    /// Waits until everything is on the vdevs.
    pub fn sync(&self) {
        sh(&format!("zpool sync {}", self.name));
    }

    /// Makes every request to a vdev take so long, many at once.
    pub fn delay(&self, vdev: &str, milliseconds: u64) {
        sh(&format!(
            "zinject -d {vdev} -D {milliseconds}:200 {}",
            self.name
        ));
    }

    /// Takes all faults out again.
    pub fn heal() {
        sh("zinject -c all >/dev/null");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let vdevs = self.vdevs.join(" ");
        let name = &self.name;
        let _ = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!(
                "zinject -c all; zpool destroy -f {name}; rm -f {vdevs}"
            ))
            .output();
    }
}

/// Operations that take longer are events.
const SLOW_NS: u64 = 20_000_000;

static ALL: Shared = Shared::new("zfs.");

/// All signals of ZFS, of which the test shows these.
pub fn attach(names: &[&str]) -> Lent {
    let options = Options {
        settings: vec![("ZFS_SLOW_NS", SLOW_NS)],
        ..Options::default()
    };
    ALL.lend(names, &options)
}

/// What was lost for a reason since the probes were attached. Each object of
/// probes has a number of its own.
pub fn lost(probes: &Probes, reason: &str) -> u64 {
    let losses = probes.0.losses().into_iter();
    let of_reason: Vec<_> = losses.filter(|(one, _)| *one == reason).collect();
    assert!(!of_reason.is_empty(), "no loss {reason}");
    of_reason.into_iter().map(|(_, count)| count).sum()
}
