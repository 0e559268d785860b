//! The guest itself: what the other scenarios stand on.

use std::{fs, path::Path};

use super::common::{sh, skipped};

/// Whether a module is loaded; says so if not.
pub fn module(name: &str) -> bool {
    let there = Path::new("/sys/module").join(name).exists();
    if !there {
        skipped(&format!("the module {name} is not loaded: cargo xtask vm"));
    }
    there
}

#[test]
fn machine_has_zfs_on_disks_and_files() {
    if !module("zfs") {
        return;
    }
    // A partition: on a whole disk `zpool create` waits for udev.
    sh("printf 'o\\nn\\np\\n1\\n2048\\n\\nw\\n' | fdisk /dev/vda >/dev/null 2>&1; sleep 1");
    for vdev in ["/dev/vda1", "/tmp/vdev"] {
        sh("truncate -s 128M /tmp/vdev");
        sh(&format!(
            "zpool create -f pool {vdev} && echo hello > /pool/file && sync"
        ));
        assert_eq!(sh("cat /pool/file"), "hello\n");
        sh("zpool destroy pool");
    }
    sh("rm /tmp/vdev");
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    assert!(symbols.lines().any(|line| line.contains(" zfs_read\t")));
}

#[test]
fn machine_has_wireguard_between_namespaces() {
    if !module("wireguard") {
        return;
    }
    sh("set -e
        ip netns add a; ip netns add b
        ip link add va netns a type veth peer name vb netns b
        ip -n a addr add 192.0.2.1/24 dev va; ip -n a link set va up
        ip -n b addr add 192.0.2.2/24 dev vb; ip -n b link set vb up
        wg genkey > /tmp/a; wg genkey > /tmp/b
        ip -n a link add wg0 type wireguard; ip -n b link add wg0 type wireguard
        ip netns exec a wg set wg0 private-key /tmp/a listen-port 51820 \
            peer $(wg pubkey < /tmp/b) endpoint 192.0.2.2:51820 allowed-ips 10.0.0.2/32
        ip netns exec b wg set wg0 private-key /tmp/b listen-port 51820 \
            peer $(wg pubkey < /tmp/a) allowed-ips 10.0.0.1/32
        ip -n a addr add 10.0.0.1/24 dev wg0; ip -n a link set wg0 up
        ip -n b addr add 10.0.0.2/24 dev wg0; ip -n b link set wg0 up
        ip netns exec a ping -c 1 -W 10 10.0.0.2
        ip netns del a; ip netns del b");
}

#[test]
fn machine_has_types_of_its_modules() {
    for name in ["zfs", "spl", "wireguard"] {
        if !module(name) {
            return;
        }
        assert!(Path::new("/sys/kernel/btf").join(name).exists(), "{name}");
    }
}
