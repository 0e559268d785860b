//! Cgroup ids to units: the systemd unit, container, pod or VM that a cgroup
//! belongs to.

use std::{
    collections::{HashMap, VecDeque},
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use kldtrace_abi::event::{CGROUP_MADE, CgroupEvent, PATH};

/// Removed cgroups whose names are still remembered: their last sockets may
/// close long after them.
const REMEMBERED: usize = 4096;

/// The unit of what belongs to no cgroup, such as a reset for a closed port.
pub const NO_UNIT: &str = "";
/// The unit of a cgroup whose name was never learnt.
pub const UNKNOWN: &str = "unknown";

/// Id of the hierarchy's own root (fs/kernfs/dir.c: the first that
/// `kernfs_create_root` gives).
const ROOT: u64 = 1;

#[derive(Clone, Debug)]
struct Known {
    unit: Arc<str>,
    removed: bool,
}

/// The names of all cgroups, living and lately gone.
#[derive(Clone)]
pub struct Cgroups {
    root: Option<PathBuf>,
    /// Whether the whole hierarchy is in sight: not so without a mount of v2,
    /// or in a cgroup namespace, where what has no name may well be alive.
    complete: bool,
    known: HashMap<u64, Known>,
    removed: VecDeque<u64>,
    unknown: Arc<str>,
    none: Arc<str>,
    /// Cgroups made and removed since start.
    pub events: [u64; 2],
}

impl Cgroups {
    /// Reads the hierarchy below its mount point; `None`: there is no v2.
    pub fn new(root: Option<PathBuf>) -> Self {
        let top = root.as_ref().and_then(|root| fs::metadata(root).ok());
        let mut cgroups = Self {
            complete: top.is_some_and(|top| top.ino() == ROOT),
            root,
            known: HashMap::new(),
            removed: VecDeque::new(),
            unknown: UNKNOWN.into(),
            none: NO_UNIT.into(),
            events: [0; 2],
        };
        cgroups.rescan();
        cgroups
    }

    /// Reads the whole hierarchy anew: at start, and when events were lost.
    pub fn rescan(&mut self) {
        if let Some(root) = self.root.clone() {
            let mut alive = HashMap::new();
            walk(&root, &root, &mut alive);
            for (id, known) in &mut self.known {
                if !alive.contains_key(id) && !known.removed {
                    known.removed = true;
                    self.removed.push_back(*id);
                }
            }
            for (id, unit) in alive {
                self.known.insert(
                    id,
                    Known {
                        unit,
                        removed: false,
                    },
                );
            }
            self.forget();
        }
    }

    /// Takes in one event of the ring buffer; what is not one is ignored. The
    /// id of a cgroup that was removed comes back.
    pub fn event(&mut self, bytes: &[u8]) -> Option<u64> {
        let event = parse(bytes)?;
        let unit = unit_of(event.path).into();
        if event.made {
            self.events[0] += 1;
            let removed = false;
            self.known.insert(event.id, Known { unit, removed });
            return None;
        }
        self.events[1] += 1;
        let removed = false;
        let known = self.known.entry(event.id);
        let known = known.or_insert(Known { unit, removed });
        if !known.removed {
            known.removed = true;
            self.removed.push_back(event.id);
        }
        self.forget();
        Some(event.id)
    }

    /// The ids of all cgroups that live.
    pub fn living(&self) -> impl Iterator<Item = u64> {
        self.known
            .iter()
            .filter(|(_, known)| !known.removed)
            .map(|(id, _)| *id)
    }

    fn forget(&mut self) {
        while self.removed.len() > REMEMBERED {
            if let Some(id) = self.removed.pop_front() {
                self.known.remove(&id);
            }
        }
    }

    /// The unit of a cgroup id, and whether the cgroup is gone. One that has no
    /// name, though the whole hierarchy was read after its id was seen, is gone:
    /// its events were lost, or so many have gone since that its name is
    /// forgotten.
    pub fn unit(&self, id: u64) -> (Arc<str>, bool) {
        match self.known.get(&id) {
            _ if id == 0 => (self.none.clone(), false),
            Some(known) => (known.unit.clone(), known.removed),
            None => (self.unknown.clone(), self.complete),
        }
    }

    /// Whether an id has a name, or reading the hierarchy would not help.
    pub fn knows(&self, id: u64) -> bool {
        id == 0 || self.known.contains_key(&id) || !self.complete
    }
}

fn walk(root: &Path, folder: &Path, into: &mut HashMap<u64, Arc<str>>) {
    if let Ok(metadata) = fs::metadata(folder) {
        let path = folder.strip_prefix(root).unwrap_or(folder);
        let unit = unit_of(&format!("/{}", path.to_string_lossy()));
        into.insert(metadata.ino(), unit.into());
    }
    // A cgroup may go while it is read: then it is not there.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(root, &entry.path(), into);
        }
    }
}

struct Event<'a> {
    made: bool,
    id: u64,
    path: &'a str,
}

fn parse(bytes: &[u8]) -> Option<Event<'_>> {
    const PATH_AT: usize = std::mem::offset_of!(CgroupEvent, path);
    let word = |at: usize| {
        let word = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(word))
    };
    let kind = word(std::mem::offset_of!(CgroupEvent, kind))?;
    let length = word(std::mem::offset_of!(CgroupEvent, length))? as usize;
    let id_at = std::mem::offset_of!(CgroupEvent, id);
    let id = u64::from_ne_bytes(bytes.get(id_at..id_at + 8)?.try_into().ok()?);
    let path = bytes.get(PATH_AT..PATH_AT + length.min(PATH))?;
    let path = path.split(|&byte| byte == 0).next()?;
    Some(Event {
        made: kind == CGROUP_MADE,
        id,
        path: std::str::from_utf8(path).unwrap_or(UNKNOWN),
    })
}

/// The unit that a cgroup path belongs to.
///
/// The deepest part with a name that people know wins: a container or pod
/// (`cri-containerd-…`, `docker-…`, `libpod-…`, `kubepods…-pod…`), a VM
/// (`machine-qemu…`), else the systemd unit. What systemd makes below a
/// unit (delegated subgroups) belongs to the unit.
pub fn unit_of(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return "root".to_owned();
    }
    if let Some(pod) = parts.iter().find_map(|part| pod(part)) {
        return format!("pod/{pod}");
    }
    if let Some(container) = parts.iter().find_map(|part| container(part)) {
        return container;
    }
    if let Some(machine) = parts.iter().find_map(|part| machine(part)) {
        return format!("vm/{machine}");
    }
    let is_unit = |part: &&&str| {
        [".service", ".scope", ".socket", ".mount", ".swap"]
            .iter()
            .any(|end| part.ends_with(end))
    };
    if let Some(unit) = parts.iter().find(is_unit) {
        // A user's own services run below their manager, user@1000.service.
        let below = parts.iter().rev().find(is_unit);
        return match below {
            Some(inner) if unit.starts_with("user@") => (*inner).to_owned(),
            _ => (*unit).to_owned(),
        };
    }
    let is_slice = |part: &&&str| part.strip_suffix(".slice").is_some();
    match parts.iter().rev().find(is_slice) {
        Some(slice) => (*slice).to_owned(),
        None => parts.join("/"),
    }
}

/// `kubepods-burstable-pod1234_5678.slice` or, by cgroupfs, `pod1234-5678`.
fn pod(part: &str) -> Option<String> {
    let id = match part.strip_suffix(".slice") {
        Some(slice) if slice.starts_with("kubepods") => slice.split_once("-pod")?.1,
        _ => part.strip_prefix("pod")?,
    };
    let hex = |c: char| c.is_ascii_hexdigit() || c == '-' || c == '_';
    (id.len() >= 32 && id.chars().all(hex)).then(|| id.replace('_', "-"))
}

/// `docker-<64 hex digits>.scope`, `libpod-….scope`, `crio-….scope`.
fn container(part: &str) -> Option<String> {
    let scope = part.strip_suffix(".scope")?;
    let (runtime, id) = scope.rsplit_once('-')?;
    let known = ["docker", "libpod", "crio", "cri-containerd", "nerdctl"].contains(&runtime);
    let short = id.get(..12)?;
    let hex = id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit());
    (known && hex).then(|| format!("{runtime}/{short}"))
}

/// `machine-qemu\x2d3\x2ddb1.scope`, as libvirt and systemd-machined write it.
fn machine(part: &str) -> Option<String> {
    let name = part.strip_prefix("machine-")?.strip_suffix(".scope")?;
    let name = name.replace("\\x2d", "-");
    let mut pieces = name.splitn(3, '-');
    match (pieces.next()?, pieces.next(), pieces.next()) {
        ("qemu" | "lxc", Some(number), Some(vm)) if number.parse::<u32>().is_ok() => {
            Some(vm.to_owned())
        }
        _ => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let uid = "0a1b2c3d_1111_2222_3333_444455556666";
        for (path, unit) in [
            ("/", "root"),
            ("/init.scope", "init.scope"),
            ("/system.slice/nginx.service", "nginx.service"),
            (
                "/system.slice/system-getty.slice/getty@tty1.service",
                "getty@tty1.service",
            ),
            ("/system.slice/k3s.service/worker", "k3s.service"),
            (
                "/user.slice/user-1000.slice/session-3.scope",
                "session-3.scope",
            ),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service",
                "foo.service",
            ),
            ("/user.slice", "user.slice"),
            ("/made/by/hand", "made/by/hand"),
            (
                &format!("/system.slice/docker-{id}.scope"),
                "docker/0123456789ab",
            ),
            (
                &format!("/machine.slice/libpod-{id}.scope/container"),
                "libpod/0123456789ab",
            ),
            (
                &format!(
                    "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid}.slice/cri-containerd-{id}.scope"
                ),
                "pod/0a1b2c3d-1111-2222-3333-444455556666",
            ),
            (
                "/machine.slice/machine-qemu\\x2d3\\x2ddb\\x2d1.scope/libvirt/vcpu0",
                "vm/db-1",
            ),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }

    #[test]
    fn events_name_and_remove() {
        let mut cgroups = Cgroups::new(None);
        let mut bytes = vec![0; size_of::<CgroupEvent>()];
        let path = b"/system.slice/a.service\0";
        bytes[..4].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[4..8].copy_from_slice(&(path.len() as u32).to_ne_bytes());
        bytes[8..16].copy_from_slice(&77_u64.to_ne_bytes());
        bytes[16..16 + path.len()].copy_from_slice(path);
        cgroups.event(&bytes);
        assert_eq!(cgroups.unit(77), ("a.service".into(), false));
        bytes[..4].copy_from_slice(&2_u32.to_ne_bytes());
        cgroups.event(&bytes);
        assert_eq!(cgroups.unit(77), ("a.service".into(), true));
        assert_eq!(cgroups.events, [1, 1]);
        // Cut short or with a wild length: ignored or cut, never a panic.
        for length in 0..bytes.len() {
            cgroups.event(&bytes[..length]);
        }
        bytes[4..8].copy_from_slice(&u32::MAX.to_ne_bytes());
        cgroups.event(&bytes);
    }

    #[test]
    fn what_is_out_of_sight_is_not_gone() {
        // No hierarchy, or a folder that is not its root.
        let folder = tempfile::tempdir().unwrap();
        for root in [None, Some(folder.path().to_owned())] {
            let cgroups = Cgroups::new(root);
            assert_eq!(cgroups.unit(77), (UNKNOWN.into(), false));
            assert!(cgroups.knows(77));
        }
    }

    #[test]
    fn names_of_the_removed_are_bounded() {
        let mut cgroups = Cgroups::new(None);
        let mut bytes = vec![0; size_of::<CgroupEvent>()];
        for id in 0..3 * REMEMBERED as u64 {
            for kind in [1_u32, 2] {
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
                bytes[8..16].copy_from_slice(&(id + 1).to_ne_bytes());
                cgroups.event(&bytes);
            }
        }
        assert!(cgroups.known.len() <= REMEMBERED + 1);
    }
}
