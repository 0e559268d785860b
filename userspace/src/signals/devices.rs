//! Device numbers to the names that people know.

use std::{collections::HashMap, fs, sync::Arc};

use crate::words::until_zero;

/// Names of block devices.
#[derive(Default)]
pub struct Devices {
    names: HashMap<(u32, u32), Arc<str>>,
}

impl Devices {
    /// The disk's kernel name (`nvme0n1`), and whether it is gone. A disk that
    /// was never seen alive has its numbers for a name.
    pub fn name(&mut self, major: u32, minor: u32) -> (Arc<str>, bool) {
        // The link's last part is the name; reading it again each time also
        // finds out that a number was given to another disk.
        let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
        let alive = link
            .as_ref()
            .ok()
            .and_then(|link| link.file_name())
            .map(|name| name.to_string_lossy());
        match alive {
            Some(name) => {
                let known = self
                    .names
                    .entry((major, minor))
                    .or_insert_with(|| (&*name).into());
                if **known != *name {
                    *known = (&*name).into();
                }
                (known.clone(), false)
            }
            None => match self.names.get(&(major, minor)) {
                Some(name) => (name.clone(), true),
                None => (format!("{major}:{minor}").into(), true),
            },
        }
    }
}

/// The name of a network interface as the probes copy it: IFNAMSIZ (16) bytes.
/// It may have any bytes but `/` and white space.
pub fn interface(name: &[u64; 2]) -> String {
    until_zero(name.map(u64::to_ne_bytes).as_flattened())
}
