//! Device numbers of mounted datasets to their names.
//!
//! /proc/PID/mountinfo (proc(5)) has both: ` 36 35 0:45 / /mnt rw - zfs
//! tank/data rw,xattr`. The name there is the dataset's name of this very
//! moment (module/os/linux/zfs/zpl_super.c: `zpl_show_devname`).

use std::{collections::HashMap, fs, sync::Arc};

/// The dataset of what was never seen mounted: it is mounted in a mount
/// namespace that cannot be seen from here.
pub const UNKNOWN: &str = "unknown";

/// A dataset's labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The pool.
    pub pool: Arc<str>,
    /// The dataset's full name.
    pub dataset: Arc<str>,
}

impl Name {
    /// From a full name, as `zfs list` shows it.
    pub fn new(dataset: &str) -> Self {
        let pool = dataset.split(['/', '@']).next().unwrap_or(dataset);
        Self {
            pool: pool.into(),
            dataset: dataset.into(),
        }
    }
}

/// The names of mounted datasets, by device number.
#[derive(Default)]
pub struct Datasets {
    mounted: HashMap<u32, Name>,
    /// What was mounted once: the last account may be read after the unmount.
    before: HashMap<u32, Name>,
    /// What had another name when it was last read: what was counted under it
    /// stays with it.
    renamed: HashMap<u32, Name>,
}

impl Datasets {
    /// Reads the mounts anew.
    pub fn read(&mut self) {
        self.replace(all_mounts());
    }

    /// Takes other names in place of those that were.
    pub(super) fn replace(&mut self, mounted: HashMap<u32, Name>) {
        let last = std::mem::replace(&mut self.mounted, mounted);
        self.renamed.clear();
        for (device, name) in last {
            match self.mounted.get(&device) {
                Some(now) if *now == name => {}
                Some(_) => {
                    self.renamed.insert(device, name);
                }
                None => {
                    self.before.insert(device, name);
                }
            }
        }
        let mounted = &self.mounted;
        self.before
            .retain(|device, _| !mounted.contains_key(device));
    }

    /// The labels that a device has at this moment, for an event.
    pub fn name_now(&self, device: u32) -> Name {
        if let Some(name) = self.mounted.get(&device) {
            return name.clone();
        }
        // Mounted since the accounts were last read. That reading must not
        // miss what has changed, so it is not told of this one.
        let fresh: HashMap<_, _> = all_mounts();
        fresh
            .get(&device)
            .cloned()
            .unwrap_or_else(|| self.name(device).0)
    }

    /// The labels of a device, and whether they end here: it is no longer
    /// mounted, or has another name from now on.
    pub fn name(&self, device: u32) -> (Name, bool) {
        if let Some(name) = self.renamed.get(&device) {
            return (name.clone(), true);
        }
        if let Some(name) = self.mounted.get(&device) {
            return (name.clone(), false);
        }
        match self.before.get(&device) {
            Some(name) => (name.clone(), true),
            None => {
                let unknown = Name {
                    pool: UNKNOWN.into(),
                    dataset: UNKNOWN.into(),
                };
                (unknown, false)
            }
        }
    }
}

/// Our own mounts, and the host's, which in a container are others.
fn all_mounts() -> HashMap<u32, Name> {
    let mut mounted = HashMap::new();
    for process in ["self", "1"] {
        let text = fs::read(format!("/proc/{process}/mountinfo")).unwrap_or_default();
        mounted.extend(mounts(&String::from_utf8_lossy(&text)));
    }
    mounted
}

/// The ZFS mounts of a mountinfo text, by the kernel's `dev_t`
/// (include/linux/kdev_t.h: 20 bits for the minor number).
fn mounts(text: &str) -> impl Iterator<Item = (u32, Name)> {
    text.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        if after.next()? != "zfs" {
            return None;
        }
        let source = unescaped(after.next()?);
        let (major, minor) = before.split(' ').nth(2)?.split_once(':')?;
        let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
        let device = major.checked_mul(1 << 20)?.checked_add(minor)?;
        Some((device, Name::new(&source)))
    })
}

/// Undoes the octal escapes of fs/proc_namespace.c: `mangle`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 0:21 / /proc rw,nosuid - proc proc rw
36 22 0:45 / /tank rw,noatime shared:1 - zfs tank rw,xattr,noacl
37 36 0:46 / /tank/with\\040space rw - zfs tank/with\\040space rw
38 36 0:47 / /tank/.zfs/snapshot/a ro - zfs tank@a ro
39 36 broken
40 36 0:48 / /x rw - ext4 /dev/zd0 rw
";

    #[test]
    fn only_zfs_with_its_pool() {
        let found: HashMap<_, _> = mounts(MOUNTS).collect();
        assert_eq!(found.len(), 3);
        assert_eq!(found[&45], Name::new("tank"));
        assert_eq!(&*found[&46].dataset, "tank/with space");
        assert_eq!(
            (&*found[&47].pool, &*found[&47].dataset),
            ("tank", "tank@a")
        );
    }

    #[test]
    fn what_was_unmounted_keeps_its_name_until_its_number_is_given_away() {
        let mut datasets = Datasets::default();
        assert_eq!(&*datasets.name(45).0.dataset, UNKNOWN);
        datasets.replace(mounts(MOUNTS).collect());
        assert_eq!(datasets.name(45), (Name::new("tank"), false));
        datasets.replace(HashMap::new());
        assert_eq!(datasets.name(45), (Name::new("tank"), true));
        datasets.replace([(45, Name::new("other"))].into());
        assert_eq!(datasets.name(45), (Name::new("other"), false));
    }

    #[test]
    fn what_was_counted_under_an_old_name_stays_with_it() {
        let mut datasets = Datasets::default();
        datasets.replace([(45, Name::new("tank/a"))].into());
        datasets.replace([(45, Name::new("tank/b"))].into());
        assert_eq!(datasets.name(45), (Name::new("tank/a"), true));
        datasets.replace([(45, Name::new("tank/b"))].into());
        assert_eq!(datasets.name(45), (Name::new("tank/b"), false));
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescaped("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescaped("\\9\\04"), "\\9\\04");
        assert_eq!(unescaped("\\"), "\\");
    }
}
