//! Which packages a guest is made of, and a name for what comes of them.

use anyhow::{Context, Result};

use super::apt::View;
use super::build::MODULES;
use super::matrix::{Cell, Release, Types};
use crate::sh;

/// To be raised when the steps of a build change what comes out of them: then
/// guests are built anew.
const RECIPE: u32 = 1;

/// Packages that a kernel's image may be split over.
const IMAGE: &[&str] = &["linux-base-", "linux-binary-", "linux-modules-"];

/// What OpenZFS's configure and a kernel's makefiles call, beside what the
/// headers themselves depend on.
const BUILDERS: &[&str] = &[
    "binutils",
    "coreutils",
    "dash",
    "diffutils",
    "file",
    "findutils",
    "gawk",
    "gcc",
    "grep",
    "libc6-dev",
    "make",
    "sed",
];

/// Exact packages of a cell.
pub struct Plan {
    /// The kernel's release, as `uname -r` says it.
    pub release: String,
    /// Packages that are unpacked.
    pub packages: Vec<String>,
    /// Libraries that the tools of ZFS need, where the machine's are too old.
    pub libraries: Vec<String>,
    /// What builds OpenZFS, where the machine's is too old.
    pub tools: Vec<String>,
    versions: String,
    /// Where the modules' types come from.
    pub types: Types,
}

impl Plan {
    /// Looks up what the archive has today.
    pub fn new(cell: &Cell, view: &View) -> Result<Self> {
        let named = |meta: &str, prefix: &str| {
            let mut all = view.depends(meta)?.into_iter();
            all.find(|name| name.starts_with(prefix))
                .with_context(|| format!("{meta} depends on no {prefix}…"))
        };
        let image = named(cell.image, "linux-image-")?;
        let headers = named(cell.headers, "linux-headers-")?;
        let suite = cell.zfs_suite;
        let zfsutils = format!("zfsutils-linux/{suite}");
        let mut packages = vec![image.clone(), headers.clone()];
        // Since 7.2 the image itself is in packages that its own depends on.
        packages.extend(
            view.depends(&image)?
                .into_iter()
                .filter(|name| IMAGE.iter().any(|part| name.starts_with(part))),
        );
        let headers_need = view.depends(&headers)?;
        let kbuild = |name: &&String| name.starts_with("linux-kbuild-");
        packages.extend(
            headers_need
                .iter()
                .filter(|name| name.ends_with("-common") || kbuild(name))
                .cloned(),
        );
        packages.push(format!("zfs-dkms/{suite}"));
        let (own, others): (Vec<_>, Vec<_>) = view
            .depends(&zfsutils)?
            .into_iter()
            .filter(|name| name.starts_with("lib"))
            .partition(|name| name.ends_with("linux"));
        packages.extend(own.iter().map(|name| format!("{name}/{suite}")));
        packages.push(zfsutils);
        // zinject is in no other.
        packages.push(format!("zfs-test/{suite}"));
        let (mut libraries, mut tools) = (Vec::new(), Vec::new());
        if cell.release != Release::Bookworm {
            libraries = others;
            for name in &own {
                let needed = view.depends(name)?.into_iter();
                libraries.extend(needed.filter(|name| !own.contains(name)));
            }
            // What these need in turn, but for settings and documents.
            let all = view.closure(&libraries)?.into_iter();
            libraries = all
                .map(|(name, _)| name)
                .filter(|name| name.starts_with("lib") || name.starts_with("zlib"))
                .collect();
            tools = BUILDERS.iter().map(|&name| name.to_owned()).collect();
            let compiler = headers_need.iter().find(|name| name.starts_with("gcc-"));
            tools.extend(compiler.cloned());
            for kbuild in headers_need.iter().filter(kbuild) {
                tools.extend(view.depends(kbuild)?);
            }
        }
        let versions = view.versions(&packages)?;
        Ok(Self {
            release: image
                .strip_prefix("linux-image-")
                .unwrap_or(&image)
                .to_owned(),
            packages,
            libraries,
            tools,
            versions,
            types: cell.types,
        })
    }

    /// The packages of the kernel's image and modules.
    pub fn image(&self) -> Vec<String> {
        let of_image = |name: &&String| is_of_image(name);
        self.packages.iter().filter(of_image).cloned().collect()
    }

    /// Names modules that are taken out of exactly these packages.
    pub fn modules_key(&self, modules: &[&str]) -> Result<String> {
        let versions: Vec<_> = self.versions.lines().filter(|l| is_of_image(l)).collect();
        let sum = sh::sum(&format!("{versions:?}{modules:?}{RECIPE}"))?;
        Ok(format!("{}_modules_{}", self.release, &sum[..12]))
    }

    /// Names what is built from exactly this.
    pub fn key(&self) -> Result<String> {
        let text = format!("{}{:?}{MODULES:?}{RECIPE}", self.versions, self.types);
        let sum = sh::sum(&text)?;
        Ok(format!(
            "{}_zfs-{}_{}",
            self.release,
            self.zfs(),
            &sum[..12]
        ))
    }

    /// The version of the package that OpenZFS is built from.
    pub fn zfs(&self) -> &str {
        let mut lines = self.versions.lines();
        lines
            .find_map(|line| line.strip_prefix("zfs-dkms "))
            .unwrap_or("unknown")
    }
}

/// Whether a package's name, or a line that begins with one, is of the image.
fn is_of_image(name: &str) -> bool {
    name.starts_with("linux-image-") || IMAGE.iter().any(|part| name.starts_with(part))
}
