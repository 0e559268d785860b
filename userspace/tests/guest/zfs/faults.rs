//! What goes wrong or goes away: names, pools, the module itself.

use std::{
    fs::{self, File},
    io::Write as _,
    process::Command,
};

use kldtrace::kernel::loader::{Availability, Options};

use super::{Pool, attach, ops::LATENCY, ops::count};
use crate::{
    common::{gained, kldtrace, sh, wait_for},
    machine::module,
};

fn write(path: impl AsRef<std::path::Path>, times: usize) {
    let mut file = File::create(path).unwrap();
    for _ in 0..times {
        file.write_all(b"some").unwrap();
    }
}

#[test]
fn zfs_names_follow_rename_and_export_and_counts_stay() {
    let Some(pool) = Pool::make("names", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency"]);
    let before = probes.snapshot();
    write(pool.file("a"), 5);
    let first = probes.snapshot();
    assert_eq!(count(&before, &first, "names/data", "write"), 5);
    sh("zfs rename names/data names/other");
    // What is counted until the next reading still goes to the old name.
    probes.snapshot();
    write("/names/other/b", 3);
    let second = probes.snapshot();
    assert_eq!(count(&before, &second, "names/other", "write"), 3);
    sh("zpool export names");
    let gone = probes.snapshot();
    sh("zpool import -d /tmp names");
    write("/names/other/c", 2);
    let last = probes.snapshot();
    let all = |snapshot| {
        let labels = [("pool", "names"), ("op", "write")];
        gained(&before, snapshot, LATENCY, &labels).count()
    };
    assert_eq!((all(&gone), all(&last)), (8, 10));
}

#[test]
fn zfs_names_at_their_limit_are_whole() {
    let name = "p".repeat(200);
    let Some(pool) = Pool::make(&name, 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency", "zfs.vdev_device_latency"]);
    let before = probes.snapshot();
    write(pool.file("a"), 4);
    pool.sync();
    let after = probes.snapshot();
    assert_eq!(count(&before, &after, &pool.dataset(), "write"), 4);
    let labels = [("pool", name.as_str()), ("vdev", &pool.vdevs[0])];
    let metric = "kldtrace_zfs_vdev_device_latency_seconds";
    assert!(gained(&before, &after, metric, &labels).count() > 0);
}

#[test]
fn zfs_vdevs_that_are_added_and_removed_have_their_names() {
    let Some(pool) = Pool::make("grows", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.vdev_device_latency"]);
    sh("truncate -s 192M /tmp/added && zpool add -f grows /tmp/added");
    let before = probes.snapshot();
    fs::write(pool.file("file"), vec![1; 4 << 20]).unwrap();
    pool.sync();
    let after = probes.snapshot();
    let metric = "kldtrace_zfs_vdev_device_latency_seconds";
    let labels = [("pool", "grows"), ("vdev", "/tmp/added"), ("type", "write")];
    assert!(gained(&before, &after, metric, &labels).count() > 0);
}

#[test]
fn zfs_without_types_of_the_module_keeps_what_needs_none() {
    if !module("zfs") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        module_btf: folder.path().into(),
        ..Options::default()
    };
    let wanted: Vec<_> = kldtrace::catalogue::signals()
        .filter(|signal| signal.name.starts_with("zfs."))
        .collect();
    let reader = kldtrace::signals::reader::Reader::attach(
        &wanted,
        &options,
        &kldtrace::signals::Labels::at_most(100),
    )
    .unwrap();
    for name in [
        "zfs.op_latency",
        "zfs.stage_latency",
        "zfs.arc_accesses",
        "zfs.txg_time",
    ] {
        assert!(reader.has(name), "{name}: {:?}", reader.signals());
    }
    for (signal, is) in reader.signals() {
        if signal.name.starts_with("zfs.vdev") || signal.name.starts_with("zfs.log_queue") {
            let Availability::Absent(why) = is else {
                panic!("{}: {is:?}", signal.name);
            };
            assert!(why.contains("the module zfs has no BTF"), "{why}");
        }
    }
}

#[test]
fn zfs_unloaded_and_loaded_again_goes_on_counting() {
    let Some(pool) = Pool::make("again", 1, "") else {
        return;
    };
    let mut probes = attach(&["zfs.op_latency"]);
    let before = probes.snapshot();
    write(pool.file("a"), 5);
    drop(pool);
    // The trampolines of reads keep the module until the mount is seen to be gone.
    wait_for("the module to go", || {
        probes.snapshot();
        Command::new("modprobe")
            .args(["-r", "zfs"])
            .status()
            .unwrap()
            .success()
    });
    let gone = probes.snapshot();
    let writes = |snapshot| gained(&before, snapshot, LATENCY, &[("op", "write")]).count();
    assert!(!probes.0.has("zfs.op_latency"));
    let waiting = probes.0.signals();
    let why = waiting[0].1.reason().unwrap();
    assert!(why.contains("modprobe zfs"), "{why}");
    assert!(gone.0.iter().all(|family| !family.name.contains("_zfs_")));
    // A command that needs ZFS says so, and what to do.
    let output = kldtrace()
        .args(["latency", "zfs", "--duration", "1s"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("modprobe zfs"),
        "{said}"
    );

    sh("modprobe zfs");
    let pool = Pool::make("again", 1, "").unwrap();
    wait_for("the probes to be attached again", || {
        probes.snapshot();
        probes.0.has("zfs.op_latency")
    });
    write(pool.file("b"), 3);
    let after = probes.snapshot();
    assert_eq!(writes(&after), 8);
}
