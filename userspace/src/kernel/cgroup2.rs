//! The cgroup v2 hierarchy.

use std::path::{Path, PathBuf};

/// Where cgroup v2 is mounted: /sys/fs/cgroup, or beside v1 in `unified`.
pub fn root() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, path, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| Path::new(path).to_owned())
    })
}
