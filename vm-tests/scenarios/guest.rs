//! The guest itself: what the other scenarios stand on.

use std::{fs, path::Path, process::Command};

/// Says why a test cannot run here. The runner counts these lines.
pub fn skipped(why: &str) {
    println!("skipped: {why}");
}

/// Whether a module is loaded; says so if not.
pub fn module(name: &str) -> bool {
    let there = Path::new("/sys/module").join(name).exists();
    if !there {
        skipped(&format!("the module {name} is not loaded: cargo xtask vm"));
    }
    there
}

/// Runs a shell command to its end; it must succeed.
#[track_caller]
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn zfs_makes_a_pool_on_a_disk_and_on_a_file() {
    if !module("zfs") {
        return;
    }
    sh("truncate -s 128M /tmp/vdev && zpool create -f pool /tmp/vdev");
    sh("echo hello > /pool/file && sync");
    assert_eq!(sh("cat /pool/file"), "hello\n");
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap();
    assert!(symbols.lines().any(|line| line.contains(" zfs_read\t")));
    sh("zpool destroy pool && rm /tmp/vdev");
}

#[test]
fn modules_have_types() {
    for name in ["zfs", "spl", "wireguard"] {
        if !module(name) {
            return;
        }
        assert!(Path::new("/sys/kernel/btf").join(name).exists(), "{name}");
    }
}
