//! Device numbers of volumes to the names of their datasets.
//!
//! udev makes the links below /dev/zvol, and keeps which disk each is of in
//! its own table: reading that opens no disk. Where there is no udev, as in
//! some containers, the disk itself is asked, which it must be open for; a
//! volume that is open cannot be destroyed in that moment.

use std::{
    collections::HashSet,
    ffi::c_ulong,
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use super::datasets::{Datasets, Name};
use crate::words::until_zero;

/// udev's table: a file for each device.
const UDEV: &str = "/run/udev/data";

/// `BLKZNAME` of include/sys/fs/zfs.h: `_IOR(0x12, 125, char[256])`.
const BLKZNAME: c_ulong = 0x8100_127d;

/// The names of volumes, by device number.
#[derive(Default)]
pub struct Zvols {
    names: Datasets,
    living: HashSet<u32>,
}

impl Zvols {
    /// Reads the names of these devices anew.
    pub fn read(&mut self, devices: impl IntoIterator<Item = u32>) {
        self.living = devices
            .into_iter()
            .filter(|device| kernel_name(*device).is_some())
            .collect();
        let named = |device: &u32| Some((*device, Name::new(&name_now(*device)?)));
        self.names
            .replace(self.living.iter().filter_map(named).collect());
    }

    /// The labels of a device, and whether they end here: the volume is gone,
    /// or has another name from now on.
    pub fn name(&self, device: u32) -> (Name, bool) {
        let (name, ends) = self.names.name(device);
        (name, ends || !self.living.contains(&device))
    }
}

/// Major and minor number (include/linux/kdev_t.h).
fn numbers(device: u32) -> (u32, u32) {
    (device >> 20, device & 0xf_ffff)
}

/// `zd0`; `None`: there is no such disk.
fn kernel_name(device: u32) -> Option<PathBuf> {
    let (major, minor) = numbers(device);
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(link.file_name()?.into())
}

fn name_now(device: u32) -> Option<String> {
    let (major, minor) = numbers(device);
    let table = Path::new(UDEV).join(format!("b{major}:{minor}"));
    let told = fs::read(table).unwrap_or_default();
    linked(&String::from_utf8_lossy(&told)).or_else(|| asked(device))
}

/// The link of an entry of udev's table, `S:zvol/tank/vol`. Blanks in a name
/// are written as `+`, which no name has (udev/zvol_id.c).
fn linked(entry: &str) -> Option<String> {
    let link = entry
        .lines()
        .find_map(|line| line.strip_prefix("S:zvol/"))?;
    (!link.is_empty()).then(|| link.replace('+', " "))
}

/// The name that the disk itself tells.
fn asked(device: u32) -> Option<String> {
    let disk = open(&Path::new("/dev").join(kernel_name(device)?), device)?;
    let mut name = [0_u8; 256];
    // SAFETY: the descriptor is open, and the disk is one of ZFS, whose call
    // writes 256 bytes, which are there.
    let done = unsafe { libc::ioctl(disk.as_raw_fd(), BLKZNAME, name.as_mut_ptr()) };
    let name = until_zero(&name);
    (done == 0 && !name.is_empty()).then_some(name)
}

/// Opens a disk if it is this device.
fn open(path: &Path, device: u32) -> Option<File> {
    let disk = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .ok()?;
    let (major, minor) = numbers(device);
    (disk.metadata().ok()?.rdev() == libc::makedev(major, minor)).then_some(disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_links() {
        let entry = "S:zvol/tank/vm+disks/one\nL:0\nI:1234\nE:ID_FS_TYPE=ext4\nV:1\n";
        assert_eq!(linked(entry).as_deref(), Some("tank/vm disks/one"));
        for none in ["", "S:disk/by-id/x\n", "S:zvol/\n", "S:zvol\n"] {
            assert_eq!(linked(none), None, "{none:?}");
        }
    }

    #[test]
    fn what_is_not_there_has_no_name_and_ends() {
        let mut zvols = Zvols::default();
        let device = (4095 << 20) | 1;
        zvols.read([device]);
        assert!(zvols.name(device).1);
    }
}
