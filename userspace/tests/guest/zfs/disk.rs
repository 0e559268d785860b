//! Vdevs on real block devices, whose delays and failures are the kernel's own.

use std::fs;

use super::{Pool, attach, vdev::median};
use crate::common::{assert_close, gained, sh, wait_for};

/// A disk whose writes take as long as is asked (drivers/md/dm-delay.c).
struct Disk {
    name: &'static str,
    below: String,
}

impl Disk {
    const SECTORS: u32 = 192 << 11;

    fn make(name: &'static str) -> Self {
        sh("modprobe dm_delay");
        sh(&format!(
            "rm -f /tmp/{name}.image; truncate -s 192M /tmp/{name}.image"
        ));
        let below = sh(&format!("losetup --find --show /tmp/{name}.image"));
        let disk = Self {
            name,
            below: below.trim().to_owned(),
        };
        sh(&format!(
            "echo '{}' | dmsetup create {name} --noudevsync",
            disk.table(0)
        ));
        // No udev makes its node.
        let numbers = sh(&format!(
            "dmsetup info -c --noheadings --separator ' ' -o major,minor {name}"
        ));
        sh(&format!("mknod {} b {numbers}", disk.path()));
        disk
    }

    fn path(&self) -> String {
        format!("/tmp/{}", self.name)
    }

    fn table(&self, milliseconds: u32) -> String {
        let (sectors, below) = (Self::SECTORS, &self.below);
        format!("0 {sectors} delay {below} 0 0 {below} 0 {milliseconds}")
    }

    fn delay(&self, milliseconds: u32) {
        self.load(&self.table(milliseconds));
    }

    /// Fails every request from now on (drivers/md/dm-target.c).
    fn fail(&self) {
        self.load(&format!("0 {} error", Self::SECTORS));
    }

    fn load(&self, table: &str) {
        let name = self.name;
        sh(&format!(
            "echo '{table}' | dmsetup reload {name} && dmsetup suspend --noflush --noudevsync {name} \
             && dmsetup resume --noudevsync {name}"
        ));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let (name, below) = (self.name, &self.below);
        let _ = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!(
                "dmsetup remove --noudevsync {name}; losetup --detach {below}; \
                 rm -f /tmp/{name} /tmp/{name}.image"
            ))
            .output();
    }
}

#[test]
fn zfs_delay_of_a_disk_is_in_the_device_time_of_its_vdev() {
    const DEVICE: &str = "kldtrace_zfs_vdev_device_latency_seconds";
    const QUEUE: &str = "kldtrace_zfs_vdev_queue_latency_seconds";
    if !crate::machine::module("zfs") {
        return;
    }
    let (slow, fast) = (Disk::make("slow-disk"), Disk::make("fast-disk"));
    let vdevs = [slow.path(), fast.path()];
    let pool = Pool::on("disks", &vdevs);
    let mut probes = attach(&["zfs.vdev_device_latency", "zfs.vdev_queue_latency"]);
    slow.delay(400);
    let before = probes.snapshot();
    for i in 0..8 {
        fs::write(pool.file(&format!("f{i}")), vec![i; 256 << 10]).unwrap();
    }
    pool.sync();
    let after = probes.snapshot();
    slow.delay(0);
    let of = |metric, vdev: &str| {
        let labels = [("pool", "disks"), ("vdev", vdev), ("type", "write")];
        gained(&before, &after, metric, &labels)
    };
    let (delayed, other) = (of(DEVICE, &vdevs[0]), of(DEVICE, &vdevs[1]));
    println!("{} and {}", median(&delayed), median(&other));
    assert!(delayed.count() > 5 && other.count() > 5);
    assert_close(median(&delayed), 0.4, 0.4 * 0.05);
    assert!(median(&other) < 0.2, "{}", median(&other));
    // Each request has a time in the queue and one at the device.
    assert_eq!(of(QUEUE, &vdevs[0]).count(), delayed.count());
    drop(pool);
}

#[test]
fn zfs_suspended_pool_is_told_and_comes_back() {
    const STATE: &str = "kldtrace_zfs_pool_state";
    if !crate::machine::module("zfs") {
        return;
    }
    let disk = Disk::make("fails-disk");
    let pool = Pool::on("stuck", &[disk.path()]);
    let mut probes = attach(&["zfs.pool_state"]);
    sh("zpool set failmode=wait stuck");
    let mut is = |state: &str| {
        let labels = [("pool", "stuck"), ("state", state)];
        probes.snapshot().integer(STATE, &labels) == 1
    };
    assert!(is("ONLINE"));
    disk.fail();
    fs::write(pool.file("a"), vec![1; 1 << 20]).unwrap();
    let mut sync = std::process::Command::new("zpool")
        .args(["sync", "stuck"])
        .spawn()
        .unwrap();
    wait_for("the pool to be suspended", || is("SUSPENDED"));
    disk.delay(0);
    sh("zpool clear stuck");
    sync.wait().unwrap();
    wait_for("the pool to come back", || is("ONLINE"));
    drop(pool);
}
