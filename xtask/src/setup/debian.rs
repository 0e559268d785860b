//! Debian packages.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Goal, installing, say};
use crate::sh;

/// A package and what it is for: the reason is why it may stay in this list.
const PACKAGES: &[(Goal, &str, &str)] = &[
    (Goal::Build, "gcc", "linking"),
    (Goal::Build, "libc6-dev", "linking"),
    (Goal::Build, "pkg-config", "finding C libraries"),
    (Goal::Build, "llvm-22-dev", "bpf-linker"),
    (Goal::Build, "libpolly-22-dev", "bpf-linker"),
    (Goal::Build, "libzstd-dev", "bpf-linker"),
    (Goal::Build, "zlib1g-dev", "bpf-linker"),
    (Goal::Guest, "qemu-system-x86", "runs the guests"),
    (Goal::Guest, "busybox-static", "the guests' user space"),
    (Goal::Guest, "cpio", "packs the guests' root"),
    (
        Goal::Guest,
        "e2fsprogs",
        "makes a disk of what a run gives its guests",
    ),
    (Goal::Guest, "kmod", "modules of the guests"),
    (Goal::Guest, "xz-utils", "unpacks kernels and modules"),
    (Goal::Guest, "zstd", "unpacks kernels"),
    (Goal::Guest, "lz4", "unpacks kernels"),
    (Goal::Guest, "dwarves", "types of modules (pahole)"),
    (Goal::Guest, "make", "builds OpenZFS"),
    (Goal::Guest, "gcc-12", "builds OpenZFS, as the kernel was"),
    (Goal::Guest, "libelf-dev", "builds modules (objtool)"),
    (Goal::Guest, "wireguard-tools", "wg in the guests"),
    (Goal::Guest, "dmsetup", "slow disks in the guests"),
    (Goal::Guest, "iproute2", "network namespaces in tests"),
    (Goal::Guest, "nftables", "drops and delays in tests"),
    (
        Goal::Guest,
        "bpftool",
        "a second opinion on loaded programs",
    ),
    (Goal::Test, "g++", "builds the fuzzer"),
    (Goal::Test, "iputils-ping", "echoes across planes"),
    (Goal::Test, "prometheus", "scrapes the daemon in a test"),
    (Goal::Test, "python3-pip", "installs rotel for a test"),
    (Goal::Test, "systemd", "journald and journalctl in tests"),
    (
        Goal::Test,
        "systemd-journal-remote",
        "writes journals with times and boots as tests want them",
    ),
    (
        Goal::Test,
        "prometheus-alertmanager",
        "reads and tests what alerts are routed by (amtool)",
    ),
    (Goal::Test, "tmux", "a terminal for tests of the live view"),
    (Goal::Test, "bird2", "BGP and BFD across planes"),
    (Goal::Test, "keepalived", "VRRP across planes"),
    (Goal::Test, "openssh-server", "SSH across planes"),
    (Goal::Test, "openssh-client", "SSH across planes"),
    (
        Goal::Bench,
        "libbpf-tools",
        "the peers runqlat, biolatency and fsdist",
    ),
    (Goal::Bench, "bpftrace", "a peer in guests"),
    (
        Goal::Bench,
        "xdp-tools",
        "xdp-filter, a peer of the planes' filters",
    ),
];

/// Packages whose service starts when they are installed, and its unit.
const SERVICES: &[(&str, &str)] = &[
    ("prometheus", "prometheus"),
    ("prometheus-alertmanager", "prometheus-alertmanager"),
    ("bird2", "bird"),
    ("keepalived", "keepalived"),
    ("openssh-server", "ssh"),
];

/// Installs what `goal` needs and the machine lacks.
pub fn install(goal: Goal) -> Result<()> {
    let start = Instant::now();
    let wanted = wanted(goal);
    if sh::find("dpkg-query").is_none() || sh::find("apt-get").is_none() {
        bail!(
            "setup: Debian packages: dpkg-query or apt-get is not there (is this Debian?): \
             install the counterparts of these yourself, build with `cargo build --release` \
             and start target/release/kldtrace: {}",
            wanted.join(" ")
        );
    }
    let missing = missing(&wanted, &query(&wanted)?);
    if missing.is_empty() {
        say(
            "Debian packages",
            &format!("all {} there", wanted.len()),
            start,
        );
        return Ok(());
    }
    let plan = format!("installing {}", missing.join(" "));
    installing("Debian packages", &plan, || {
        apt(&missing).context(
            "if apt has no llvm-22-dev for this release, add the archive that \
             https://apt.llvm.org names, then repeat",
        )
    })?;
    // The tests start their own; nobody asked for a service.
    for (package, service) in SERVICES {
        if missing.contains(package) && sh::find("systemctl").is_some() {
            let unit = format!("{service}.service");
            let disable = ["disable", "--quiet", "--now", &unit];
            let outcome = match sh::output(sh::command("systemctl").args(disable)) {
                Ok(_) => "disabled; only the program is needed".to_owned(),
                Err(error) => format!("left as the package set it: {error:#}"),
            };
            say(&format!("service {service}"), &outcome, start);
        }
    }
    Ok(())
}

/// Installs one package more that not every release of Debian has.
pub(super) fn add(package: &str) -> Result<()> {
    let missing = missing(&[package], &query(&[package])?);
    if missing.is_empty() {
        return Ok(());
    }
    apt(&missing)
}

fn wanted(goal: Goal) -> Vec<&'static str> {
    let wanted = PACKAGES.iter().filter(|(needed_by, ..)| *needed_by <= goal);
    wanted.map(|(_, name, _)| *name).collect()
}

/// What dpkg knows of these packages, one `name state` a line.
fn query(packages: &[&str]) -> Result<String> {
    // Exit status 1 only says that dpkg never heard of one of them.
    let output = sh::command("dpkg-query")
        .args([
            "--show",
            "--showformat",
            "${Package} ${db:Status-Status}\\n",
        ])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .context("setup: Debian packages: cannot start dpkg-query")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Those of `wanted` that `known` does not call installed.
fn missing<'a>(wanted: &[&'a str], known: &str) -> Vec<&'a str> {
    let installed: BTreeSet<_> = known
        .lines()
        .filter_map(|line| line.strip_suffix(" installed"))
        .collect();
    wanted
        .iter()
        .copied()
        .filter(|name| !installed.contains(name))
        .collect()
}

fn apt(packages: &[&str]) -> Result<()> {
    sh::run(apt_get().args(["--quiet", "update"]))
        .context("is there a way to the Debian archive (see /etc/apt/sources.list)?")?;
    sh::run(
        apt_get()
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages),
    )
}

/// apt-get without questions, its chatter on stderr, patient with a lock.
fn apt_get() -> Command {
    let mut command = sh::command("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_goal_needs() {
        assert!(!wanted(Goal::Build).contains(&"prometheus"));
        assert!(wanted(Goal::Test).contains(&"prometheus"));
        assert!(!wanted(Goal::Test).contains(&"libbpf-tools"));
        assert_eq!(wanted(Goal::Bench).len(), PACKAGES.len());
    }

    #[test]
    fn removed_and_unknown_packages_are_missing() {
        let known = "gcc installed\ntmux config-files\nzlib1g-dev installed\n";
        let wanted = ["gcc", "tmux", "zlib1g-dev", "nftables"];
        assert_eq!(missing(&wanted, known), ["tmux", "nftables"]);
    }
}
