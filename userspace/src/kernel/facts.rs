//! What this kernel has and lacks, in words for `doctor`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{
    cgroup2,
    loader::{self, Availability, Options, VMLINUX_BTF},
    object::NODE,
};
use crate::catalogue;

/// One thing that a kernel may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is called.
    pub name: String,
    /// Whether this kernel has it.
    pub present: bool,
    /// Where it was found, or why it is missing.
    pub detail: String,
}

/// Looks at the running kernel.
pub fn facts() -> Vec<Fact> {
    vec![
        file(
            "btf",
            VMLINUX_BTF,
            "no kernel types: CONFIG_DEBUG_INFO_BTF is not set",
        ),
        fexit(),
        file(
            "kprobes",
            "/sys/bus/event_source/devices/kprobe/type",
            "CONFIG_KPROBES is not set: the kernel has no kprobe event source",
        ),
        file(
            "uprobes",
            "/sys/bus/event_source/devices/uprobe/type",
            "CONFIG_UPROBES is not set: the kernel has no uprobe event source",
        ),
        file(
            "modules",
            "/proc/modules",
            "CONFIG_MODULES is not set: no module (zfs, wireguard) can be loaded",
        ),
        file(
            "tracefs",
            "/sys/kernel/tracing/events",
            "tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing",
        ),
        match cgroup2::root() {
            Some(root) => fact("cgroup2", true, root.display().to_string()),
            None => fact(
                "cgroup2",
                false,
                "no cgroup v2 hierarchy is mounted".to_owned(),
            ),
        },
    ]
}

fn fact(name: &str, present: bool, detail: String) -> Fact {
    Fact {
        name: name.to_owned(),
        present,
        detail,
    }
}

fn file(name: &str, path: &str, absent: &str) -> Fact {
    let present = Path::new(path).exists();
    let detail = if present { path } else { absent };
    fact(name, present, detail.to_owned())
}

/// Only an attempt tells: a kernel may know the program type and refuse the
/// trampoline.
fn fexit() -> Fact {
    let signal = catalogue::find("tcp.accept_latency");
    let options = Options {
        avoid: vec!["cgroup"],
        ..Options::default()
    };
    let wanted: Vec<_> = signal.into_iter().collect();
    match loader::load(&NODE, &wanted, &options, |_| Ok(())) {
        Ok((loaded, ())) => match loaded.signals.first() {
            Some((_, Availability::Absent(reason))) => {
                let first = reason.split("; cgroup/").next().unwrap_or(reason);
                fact("fexit", false, format!("this kernel refuses it: {first}"))
            }
            _ => fact("fexit", true, "inet_csk_accept attached".to_owned()),
        },
        Err(error) => fact("fexit", false, format!("{error:#}")),
    }
}
