//! What processes hold in the kernel: BPF programs, maps and links.

use std::{collections::BTreeSet, fs};

/// One kind of object, as a key of /proc/PID/fdinfo (`bpf_prog_show_fdinfo`,
/// `bpf_map_show_fdinfo`, `bpf_link_show_fdinfo` of kernel/bpf/syscall.c).
pub const PROGRAM: &str = "prog_id:";
/// See [`PROGRAM`].
pub const MAP: &str = "map_id:";
/// Where a link to a tracepoint is attached.
pub const TRACEPOINT: &str = "tp_name:";
/// A link of any kind.
pub const LINK: &str = "link_id:";

/// The values of a key, one for each descriptor of a process that has it.
pub fn values(pid: u32, key: &str) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"));
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .filter_map(|text| {
            let line = text.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim().to_owned())
        })
        .collect()
}

/// How many perf events a process holds.
pub fn perf_events(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"));
    let links = entries.into_iter().flatten().flatten();
    let targets = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.as_os_str() == "anon_inode:[perf_event]")
        .count()
}

/// The ids of programs or maps that a process holds.
pub fn ids(pid: u32, key: &str) -> BTreeSet<u32> {
    let values = values(pid, key);
    values.iter().map(|id| id.parse().unwrap()).collect()
}

/// All programs in the kernel.
pub fn programs() -> BTreeSet<u32> {
    let all = aya::programs::loaded_programs().flatten();
    all.map(|program| program.id()).collect()
}

/// All maps in the kernel.
pub fn maps() -> BTreeSet<u32> {
    aya::maps::loaded_maps()
        .flatten()
        .map(|map| map.id())
        .collect()
}

/// Programs and maps made since then that no process holds, one not counted.
pub fn orphans(before: &(BTreeSet<u32>, BTreeSet<u32>), not_counted: Option<u32>) -> Vec<String> {
    let fresh = |now: BTreeSet<u32>, before| now.difference(before).copied().collect::<Vec<_>>();
    // Objects first, holders after: what comes in between has a holder.
    let new = [fresh(programs(), &before.0), fresh(maps(), &before.1)];
    let mut held = [BTreeSet::new(), BTreeSet::new()];
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(pid) = entry.file_name().to_string_lossy().parse()
            && Some(pid) != not_counted
        {
            held[0].extend(ids(pid, PROGRAM));
            held[1].extend(ids(pid, MAP));
        }
    }
    let kinds = ["program", "map"].into_iter().zip(new).zip(&held);
    kinds
        .flat_map(|((kind, new), held)| {
            let lost = new.into_iter().filter(|id| !held.contains(id));
            lost.map(move |id| format!("{kind} {id}"))
        })
        .collect()
}
