//! The kernels and OpenZFS releases that the tests run on.

use anyhow::{Result, bail};

/// A kernel and an OpenZFS.
#[derive(Debug, PartialEq, Eq)]
pub struct Cell {
    /// The kernel's release as people say it: `6.12`, or `newest`.
    pub kernel: &'static str,
    /// The OpenZFS release as people say it: `2.3`, or `newest`.
    pub zfs: &'static str,
    /// Debian's release that all packages come from, or from its suites.
    pub release: Release,
    /// Debian's package that depends on the newest image of this kernel.
    pub image: &'static str,
    /// The same of the headers.
    pub headers: &'static str,
    /// Debian's release that OpenZFS comes from.
    pub zfs_suite: &'static str,
    /// Where the modules' types come from.
    pub types: Types,
    /// What its clock counts.
    pub clock: Clock,
}

/// What a guest's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Instructions: a delay comes out the same however busy this machine is,
    /// and no time passes outside while the whole guest waits.
    Instructions,
    /// This machine's time. Linux 6.1 waits for its second processor in a way
    /// that never ends where instructions are counted.
    Host,
}

/// A release of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Debian 12, as the machine that builds: its compiler builds OpenZFS.
    Bookworm,
    /// What Debian gets first. Its kernels want a newer compiler and C library
    /// than the machine's: OpenZFS is built in a root of its own.
    Sid,
}

impl Release {
    /// Its name in the archive.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Sid => "sid",
        }
    }
}

/// Where the types (BTF) of the modules that are built here come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Types {
    /// The headers carry the kernel's own types: the build makes them.
    Build,
    /// The headers carry none: pahole makes them, from the image's.
    Pahole,
}

/// The matrix. The first is the one that `cargo xtask test` runs.
pub const CELLS: &[Cell] = &[
    Cell {
        kernel: "6.12",
        zfs: "2.3",
        release: Release::Bookworm,
        image: "linux-image-6.12-cloud-amd64",
        headers: "linux-headers-6.12-cloud-amd64",
        zfs_suite: "bookworm-backports",
        types: Types::Build,
        clock: Clock::Instructions,
    },
    Cell {
        kernel: "6.1",
        zfs: "2.1",
        release: Release::Bookworm,
        image: "linux-image-cloud-amd64",
        headers: "linux-headers-cloud-amd64",
        zfs_suite: "bookworm",
        types: Types::Pahole,
        clock: Clock::Host,
    },
    // Both roll forward: what they are today is said when the guest is built.
    Cell {
        kernel: "newest",
        zfs: "newest",
        release: Release::Sid,
        image: "linux-image-cloud-amd64",
        headers: "linux-headers-cloud-amd64",
        zfs_suite: "sid",
        types: Types::Build,
        clock: Clock::Instructions,
    },
];

/// The cells that have this kernel and this OpenZFS.
///
/// # Errors
/// When there is none.
pub fn pick(kernel: Option<&str>, zfs: Option<&str>) -> Result<Vec<&'static Cell>> {
    let is = |wanted: Option<&str>, it: &str| wanted.is_none_or(|wanted| wanted == it);
    let cells: Vec<_> = CELLS
        .iter()
        .filter(|cell| is(kernel, cell.kernel) && is(zfs, cell.zfs))
        .collect();
    if cells.is_empty() {
        let all: Vec<_> = CELLS.iter().map(Cell::to_string).collect();
        bail!("no such guest; there are: {}", all.join("; "));
    }
    Ok(cells)
}

impl std::fmt::Display for Cell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kernel {}, OpenZFS {}", self.kernel, self.zfs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_picked_by_either() {
        assert_eq!(pick(None, None).unwrap().len(), CELLS.len());
        assert_eq!(pick(Some("6.1"), None).unwrap()[0].zfs, "2.1");
        assert_eq!(pick(None, Some("2.3")).unwrap()[0].kernel, "6.12");
        assert_eq!(pick(Some("newest"), None).unwrap()[0].zfs, "newest");
        let error = pick(Some("6.1"), Some("2.3")).unwrap_err().to_string();
        assert!(error.contains("kernel 6.12, OpenZFS 2.3"), "{error}");
    }
}
