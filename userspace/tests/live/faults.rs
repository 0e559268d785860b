//! What a machine may lack or do to us: no BTF, no privilege, no tracefs,
//! SIGKILL, an event buffer that overflows.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use kldtrace::kernel::loader::VMLINUX_BTF;
use serde_json::Value;

use super::{
    common::{Daemon, installed, kldtrace, root, sh, wait_for},
    held,
};

/// Runs the command in a mount namespace of its own, after `prepare`.
fn apart(prepare: &str, arguments: &[&str]) -> Output {
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c"])
        .arg(format!("{prepare} && exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_kldtrace"))
        .args(arguments)
        .output()
        .unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn fact(report: &Value, name: &str) -> Value {
    let facts = report["facts"].as_array().unwrap();
    facts
        .iter()
        .find(|fact| fact["name"] == name)
        .unwrap()
        .clone()
}

#[test]
fn faults_doctor_says_what_is_hidden() {
    if !root() || !installed("unshare") {
        return;
    }
    let doctor = ["doctor", "--attach", "--json"];
    let usual = kldtrace().args(doctor).output().unwrap();

    let output = apart("mount -t tmpfs none /sys/kernel/btf", &doctor);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let without = report(&output);
    assert_eq!(fact(&without, "btf")["present"], false);
    assert_eq!(without["programs"], Value::Array(Vec::new()));
    for signal in without["signals"].as_array().unwrap() {
        // Those of modules that are not there wait, whatever else is hidden.
        if signal["available"] == false && signal["waiting"] == false {
            let reason = signal["reason"].as_str().unwrap();
            assert!(reason.contains(VMLINUX_BTF), "{signal}");
        }
    }
    let output = apart(
        "mount -t tmpfs none /sys/kernel/btf",
        &["latency", "sched", "--attach"],
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("none of its signals is measured"), "{error}");

    // tracefs is needed for returns of functions only, as probes of modules
    // have them: those signals say so, and all others are as before.
    let hide = "mount -t tmpfs none /sys/kernel/tracing";
    let output = apart(hide, &doctor);
    let without = report(&output);
    assert_eq!(fact(&without, "tracefs")["present"], false);
    assert!(
        fact(&without, "tracefs")["detail"]
            .as_str()
            .unwrap()
            .contains("mount -t tracefs")
    );
    let usual_signals = &report(&usual)["signals"];
    let both = without["signals"].as_array().unwrap().iter();
    let mut fewer = false;
    for (without, usual) in both.zip(usual_signals.as_array().unwrap()) {
        if without["reason"]
            .as_str()
            .is_some_and(|it| it.contains("mount -t tracefs"))
        {
            fewer = true;
        } else {
            assert_eq!(without["available"], usual["available"], "{without}");
        }
    }
    let all = fewer || output.status.code() == usual.status.code();
    assert!(all, "{output:?}");
}

#[test]
fn faults_without_privilege_are_told_at_once() {
    const NOBODY: u32 = 65534;
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    // Where nobody may run it.
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let command: PathBuf = folder.path().join("kldtrace");
    fs::copy(env!("CARGO_BIN_EXE_kldtrace"), &command).unwrap();
    fs::set_permissions(daemon.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = daemon.socket();
    let socket = socket.to_str().unwrap();
    for (arguments, said) in [
        (&["daemon"][..], "needs root"),
        (&["doctor", "--attach"], "needs root"),
        (&["latency", "sched", "--attach"], "needs root"),
        (
            &["latency", "sched", "--socket", socket],
            "are you root or in the socket's group?",
        ),
    ] {
        let output = Command::new(&command)
            .args(arguments)
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(
            error.contains(said) && error.lines().count() == 1,
            "{arguments:?}: {error}"
        );
    }
    // What needs no privilege works.
    let listed = Command::new(&command)
        .args(["latency", "--list"])
        .uid(NOBODY)
        .output()
        .unwrap();
    assert!(listed.status.success());

    // Root in name only, as in a container.
    for arguments in [
        &["doctor", "--attach"][..],
        &["latency", "sched", "--attach"],
    ] {
        let mut kldtrace = kldtrace();
        // SAFETY: prctl is a plain system call: it may be called after fork.
        unsafe {
            kldtrace.pre_exec(|| {
                for capability in 0..64 {
                    libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
                }
                Ok(())
            });
        }
        let output = kldtrace.args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(
            error.contains("CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"),
            "{error}"
        );
    }
}

#[test]
fn faults_sigkill_while_attaching_leaves_nothing() {
    if !root() {
        return;
    }
    let before = (held::programs(), held::maps());
    let mut daemon = Daemon::spawn("").unwrap();
    // From one delay to the next by a step that visits all of 0..250 ms.
    for turn in 0..50_u64 {
        thread::sleep(Duration::from_millis(turn * 97 % 250));
        daemon.signal(libc::SIGKILL);
        daemon.ended();
        // The same folder: the socket of the killed is still there.
        let folder = std::mem::replace(&mut daemon.folder, tempfile::tempdir().unwrap());
        daemon = Daemon::run(folder, daemon.port);
    }
    wait_for("the last one to answer", || {
        daemon.get("/healthz", "").0 == 200
    });
    let mut orphans = Vec::new();
    wait_for("what the killed left to go", || {
        orphans = held::orphans(&before, None);
        orphans.is_empty()
    });
    let living = Some(daemon.child.id());
    assert!(
        held::orphans(&before, living).len() > 5,
        "they would be seen"
    );
}

/// Runs something in a cgroup.
fn run_in(path: &Path) {
    sh(&format!(
        "echo 0 > {}/cgroup.procs; sleep 0.001",
        path.display()
    ));
}

#[test]
fn faults_event_overflow_is_counted_and_mended() {
    const SHORT: u32 = 200;
    let Some(root) = kldtrace::kernel::cgroup2::root() else {
        return;
    };
    let Some(daemon) = Daemon::start(
        "[signals]\nenable = [\"sched.*\", \"self.*\"]\n[limits]\nevent_buffer = \"64KiB\"",
    ) else {
        return;
    };
    let below = Below(root.join(format!("kldtrace-test-{}", std::process::id())));
    fs::create_dir(&below.0).unwrap();
    let entries = || {
        daemon
            .families("self")
            .integer("kldtrace_map_entries", &[("map", "sched")])
    };
    let lost = || {
        daemon
            .families("self")
            .integer("kldtrace_losses", &[("reason", "event")])
    };
    let none = entries();
    for number in 0..SHORT {
        let path = below.0.join(format!("short{number}"));
        fs::create_dir(&path).unwrap();
        run_in(&path);
    }
    let all = entries();
    assert!(all >= u64::from(SHORT), "{none} {all}");
    assert_eq!(lost(), 0);

    daemon.signal(libc::SIGSTOP);
    // More than 64 KiB of events, and then those that find no room.
    for number in 0..400 {
        let path = below.0.join(format!("flood{number}"));
        fs::create_dir(&path).unwrap();
        fs::remove_dir(&path).unwrap();
    }
    for number in 0..SHORT {
        let path = below.0.join(format!("short{number}"));
        wait_for("an empty cgroup", || fs::remove_dir(&path).is_ok());
    }
    fs::create_dir(below.0.join("late")).unwrap();
    daemon.signal(libc::SIGCONT);

    wait_for("the loss to be counted", || lost() > 0);
    println!(
        "lost {} events; entries {none}, {all}, then {}",
        lost(),
        entries()
    );
    // The names are read anew: what went is known to be gone, and its
    // accounts leave the map.
    wait_for("the accounts of the gone to go", || {
        entries() <= all - u64::from(SHORT) / 2
    });
    // What came late has its name. Other tests may fill the map meanwhile.
    let unit = format!("kldtrace-test-{}/late", std::process::id());
    wait_for("the late one to have its name", || {
        run_in(&below.0.join("late"));
        let switches = "kldtrace_sched_context_switches";
        let families = daemon.families("sched");
        families.integer(switches, &[("unit", &unit)]) > 0
    });
}

/// A cgroup that is removed with what is in it.
struct Below(PathBuf);

impl Drop for Below {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(entry.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}
