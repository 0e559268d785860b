//! Device numbers of mounted datasets to their names.
//!
//! /proc/PID/mountinfo (proc(5)) has both: ` 36 35 0:45 / /mnt rw - zfs
//! tank/data rw,xattr`. The name there is the dataset's name of this very
//! moment (module/os/linux/zfs/zpl_super.c: `zpl_show_devname`).

use std::{cell::LazyCell, collections::HashMap, fs, sync::Arc};

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

    /// The names of this moment, for events that have come until now.
    pub fn now(&self) -> Now<'_> {
        self.at(all_mounts)
    }

    fn at<F: FnOnce() -> HashMap<u32, Name>>(&self, mounts: F) -> Now<'_, F> {
        Now {
            datasets: self,
            fresh: LazyCell::new(mounts),
        }
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

/// The names of one moment.
pub struct Now<'a, F = fn() -> HashMap<u32, Name>> {
    datasets: &'a Datasets,
    /// Read for the first dataset that was mounted since the accounts were last
    /// read, and no more: there may be thousands of events, and of mounts. That
    /// reading must not miss what has changed, so it is not told of this one.
    fresh: LazyCell<HashMap<u32, Name>, F>,
}

impl<F: FnOnce() -> HashMap<u32, Name>> Now<'_, F> {
    /// The labels that a device has.
    pub fn name(&self, device: u32) -> Name {
        let mounted = self.datasets.mounted.get(&device);
        let name = mounted.or_else(|| self.fresh.get(&device));
        name.cloned()
            .unwrap_or_else(|| self.datasets.name(device).0)
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
pub(super) fn mounts(text: &str) -> impl Iterator<Item = (u32, Name)> {
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
    use std::cell::Cell;

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
    fn events_of_one_moment_read_the_mounts_once_at_most() {
        let mut datasets = Datasets::default();
        datasets.replace([(45, Name::new("tank"))].into());
        datasets.replace([(44, Name::new("tank/a"))].into());
        let reads = Cell::new(0);
        let now = datasets.at(|| {
            reads.set(reads.get() + 1);
            [(46, Name::new("tank/new"))].into()
        });
        assert_eq!(now.name(44), Name::new("tank/a"));
        assert_eq!(reads.get(), 0);
        for _ in 0..3 {
            assert_eq!(now.name(46), Name::new("tank/new"));
            assert_eq!(now.name(45), Name::new("tank"), "it was unmounted");
            assert_eq!(&*now.name(47).dataset, UNKNOWN);
        }
        assert_eq!(reads.get(), 1);
    }

    #[test]
    fn escapes_that_are_none_stay() {
        assert_eq!(unescaped("a\\040b\\134c"), "a b\\c");
        assert_eq!(unescaped("\\9\\04"), "\\9\\04");
        assert_eq!(unescaped("\\"), "\\");
    }
}
