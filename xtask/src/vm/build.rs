//! A guest's kernel, modules and tools: downloaded, built once, kept by
//! content.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::apt::View;
use super::matrix::{Cell, Clock};
use super::openzfs::{self, Place};
use super::plan::Plan;
use super::{say, scratch};
use crate::sh;

/// Modules that go into the guest, with what they depend on. Not every kernel
/// has each.
pub const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "nvme",
    "loop",
    "wireguard",
    "veth",
    "dummy",
    "sch_netem",
    "sch_tbf",
    "nf_tables",
    // Counters with names, up to 6.1.
    "nft_objref",
    "nft_counter",
    "nft_ct",
    "nft_limit",
    "nft_reject_inet",
    "nft_fib_inet",
    "dm_mod",
    "dm_delay",
    "dm_flakey",
    "brd",
    "null_blk",
    "zfs",
];

/// More of them, which tests of the host's own kernel need. They are kept
/// apart: OpenZFS is not built anew when this list grows.
const MORE: &[&str] = &["mq_deadline", "nft_numgen", "tcp_diag", "tun"];

/// What loads programs, below the root. Guests of a newer release have one of
/// their own, with the C library that the tools of ZFS there are linked to.
pub const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// What a guest is made of.
#[derive(Debug)]
pub struct Parts {
    /// The kernel, compressed as Debian ships it.
    pub kernel: PathBuf,
    /// Folder that becomes the guest's root: modules, ZFS tools, libraries.
    pub root: PathBuf,
    /// Folder with more modules.
    pub more: PathBuf,
    /// The kernel's release.
    pub release: String,
    /// The version of Debian's package of OpenZFS.
    pub zfs: String,
    /// What its clock counts.
    pub clock: Clock,
}

/// Folder of what is kept between runs: `KLDTRACE_VM_CACHE`, else below the
/// user's cache, so that a fresh clone finds it.
pub fn cache() -> PathBuf {
    if let Some(folder) = env::var_os("KLDTRACE_VM_CACHE") {
        return folder.into();
    }
    let home = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cache")));
    home.map_or_else(
        || sh::target_dir().join("vm/cache"),
        |home| home.join("kldtrace/vm"),
    )
}

/// The parts of a cell, from the cache or built now.
pub fn parts(cell: &Cell) -> Result<Parts> {
    let cache = cache();
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    scratch::remove_left_behind(&cache)?;
    let start = Instant::now();
    let view = View::open(&cache, cell.release)?;
    let plan = Plan::new(cell, &view)?;
    let folder = cache.join(plan.key()?);
    if folder.join("root").is_dir() {
        say(
            &format!("guest {cell}"),
            &format!("there: {}", plan.release),
            start,
        );
    } else {
        let what = format!("building {}, 4 to 10 minutes …", folder.display());
        say(&format!("guest {cell}"), &what, start);
        // Whole or not at all: another run may look meanwhile, or this one end.
        let building = scratch::folder(&cache, "building");
        let _ = fs::remove_dir_all(&building);
        build(&plan, &view, &cache, &building)?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&building, &folder)?;
        say(&format!("guest {cell}"), "built", start);
    }
    Ok(Parts {
        kernel: folder.join("vmlinuz"),
        root: folder.join("root"),
        more: more(&plan, &view, &cache)?,
        zfs: plan.zfs().to_owned(),
        release: plan.release,
        clock: cell.clock,
    })
}

/// The folder with the modules of [`MORE`], from the cache or made now.
fn more(plan: &Plan, view: &View, cache: &Path) -> Result<PathBuf> {
    let folder = cache.join(plan.modules_key(MORE)?);
    if folder.is_dir() {
        return Ok(folder);
    }
    let start = Instant::now();
    let making = scratch::folder(cache, "modules");
    let _ = fs::remove_dir_all(&making);
    let (all, root) = (making.join("all"), making.join("root"));
    view.unpack(&plan.image(), &making.join("packages"), &all)?;
    let modules = modules(&all, &plan.release)?;
    pick_modules(&plan.release, &modules, MORE, &root)?;
    let moved = fs::rename(root, &folder);
    fs::remove_dir_all(making)?;
    if !folder.is_dir() {
        moved.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    say("more modules", "taken out of the kernel's package", start);
    Ok(folder)
}

/// The folder of a kernel's modules among unpacked packages.
fn modules(all: &Path, release: &str) -> Result<PathBuf> {
    // Where /lib is a link to usr/lib, both lead to the same folder; in
    // unpacked packages they do not.
    ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|below| all.join(below).join(release))
        .find(|path| path.join("kernel").is_dir())
        .with_context(|| format!("no modules of {release} in its package"))
}

fn build(plan: &Plan, view: &View, cache: &Path, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let all = folder.join("all");
    let packages = [&plan.packages[..], &plan.libraries[..]].concat();
    view.unpack(&packages, &folder.join("packages"), &all)?;
    say("packages", "downloaded and unpacked", start);
    let release = &plan.release;
    let modules = modules(&all, release)?;
    let place = Place::of(plan, view, cache)?;
    openzfs::build(&place, plan, folder, &all, &modules)?;
    let start = Instant::now();
    fs::copy(kernel(&all, &modules, release)?, folder.join("vmlinuz"))?;
    let root = folder.join("root.new");
    pick_modules(release, &modules, MODULES, &root)?;
    if !root
        .join("lib/modules")
        .join(release)
        .join("extra/zfs.ko")
        .is_file()
    {
        bail!("zfs.ko was not built");
    }
    for tool in ["zpool", "zfs", "zinject", "zdb"] {
        let from = ["sbin", "usr/sbin"]
            .iter()
            .map(|dir| all.join(dir).join(tool));
        if let Some(from) = from.into_iter().find(|path| path.is_file()) {
            copy(&from, &root.join("usr/sbin").join(tool))?;
        }
    }
    for lib in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        if all.join(lib).is_dir() {
            let to = root.join("lib/x86_64-linux-gnu");
            fs::create_dir_all(&to)?;
            sh::output(
                sh::command("cp")
                    .arg("-a")
                    .arg(all.join(lib).join("."))
                    .arg(to),
            )?;
        }
    }
    let loader = all.join("usr").join(LOADER);
    if loader.is_file() {
        copy(&loader, &root.join(LOADER))?;
    }
    fs::rename(root, folder.join("root"))?;
    fs::remove_dir_all(all)?;
    fs::remove_dir_all(folder.join("packages"))?;
    let _ = fs::remove_dir_all(folder.join("zfs"));
    say("root", "put together", start);
    Ok(())
}

/// The image of the kernel: in /boot, or with its modules.
pub fn kernel(all: &Path, modules: &Path, release: &str) -> Result<PathBuf> {
    [
        all.join(format!("boot/vmlinuz-{release}")),
        modules.join("vmlinuz"),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .with_context(|| format!("no image of {release} in its package"))
}

/// Copies the modules that the guest needs, and lists them anew.
fn pick_modules(release: &str, modules: &Path, wanted: &[&str], root: &Path) -> Result<()> {
    // depmod and modprobe want lib/modules/RELEASE below a base.
    let base = modules.ancestors().nth(3).context("too short a path")?;
    sh::output(sh::command("depmod").arg("-b").arg(base).arg(release))?;
    let to = root.join("lib/modules").join(release);
    for module in wanted {
        let mut show = sh::command("modprobe");
        show.arg("-d").arg(base).arg("-S").arg(release);
        let Ok(lines) = sh::output(show.args(["--show-depends", module])) else {
            continue;
        };
        for line in lines.lines() {
            // `insmod PATH OPTIONS` or `builtin NAME`
            let Some(path) = line
                .strip_prefix("insmod ")
                .and_then(|rest| rest.split(' ').next())
            else {
                continue;
            };
            let path = Path::new(path);
            let below = path
                .strip_prefix(modules)
                .with_context(|| line.to_owned())?;
            let to = to.join(below);
            let packed = to.extension().is_some_and(|end| end == "xz");
            // Several depend on it.
            if to.exists() || packed && to.with_extension("").exists() {
                continue;
            }
            copy(path, &to)?;
            // The guest's processor is slow: unpacked here, once.
            if packed {
                sh::output(sh::command("xz").arg("-d").arg(&to))?;
            }
        }
    }
    for list in [
        "modules.builtin",
        "modules.builtin.modinfo",
        "modules.order",
    ] {
        copy(&modules.join(list), &to.join(list))?;
    }
    sh::output(sh::command("depmod").arg("-b").arg(root).arg(release))?;
    Ok(())
}

/// Copies a file and makes its folder.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(from, to)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
    Ok(())
}
