//! A guest's kernel, modules and tools: downloaded, built once, kept by
//! content.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};

use super::apt::View;
use super::matrix::{Cell, Types};
use super::say;
use crate::sh;

/// To be raised when the steps below change what comes out of them: then
/// guests are built anew.
const RECIPE: u32 = 1;

/// Modules that go into the guest, with what they depend on. Not every kernel
/// has each.
const MODULES: &[&str] = &[
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

/// What a guest is made of.
#[derive(Debug)]
pub struct Parts {
    /// The kernel, compressed as Debian ships it.
    pub kernel: PathBuf,
    /// Folder that becomes the guest's root: modules, ZFS tools, libraries.
    pub root: PathBuf,
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
    let start = Instant::now();
    let view = View::open(&cache.join("apt"))?;
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
        let building = cache.join(format!("building-{}", std::process::id()));
        let _ = fs::remove_dir_all(&building);
        build(&plan, &view, &building)?;
        let _ = fs::remove_dir_all(&folder);
        fs::rename(&building, &folder)?;
        say(&format!("guest {cell}"), "built", start);
    }
    Ok(Parts {
        kernel: folder.join("vmlinuz"),
        root: folder.join("root"),
    })
}

/// Exact packages of a cell.
struct Plan {
    release: String,
    packages: Vec<String>,
    versions: String,
    types: Types,
}

impl Plan {
    fn new(cell: &Cell, view: &View) -> Result<Self> {
        let named = |meta: &str, prefix: &str| {
            let mut all = view.depends(meta)?.into_iter();
            all.find(|name| name.starts_with(prefix))
                .with_context(|| format!("{meta} depends on no {prefix}…"))
        };
        let image = named(cell.image, "linux-image-")?;
        let headers = named(cell.headers, "linux-headers-")?;
        let suite = cell.zfs_suite;
        let tools = format!("zfsutils-linux/{suite}");
        let mut packages = vec![image.clone(), headers.clone()];
        packages.extend(
            view.depends(&headers)?
                .into_iter()
                .filter(|name| name.ends_with("-common") || name.starts_with("linux-kbuild-")),
        );
        packages.push(format!("zfs-dkms/{suite}"));
        packages.extend(
            view.depends(&tools)?
                .into_iter()
                .filter(|name| name.starts_with("lib") && name.ends_with("linux"))
                .map(|name| format!("{name}/{suite}")),
        );
        packages.push(tools);
        // zinject is in no other.
        packages.push(format!("zfs-test/{suite}"));
        let versions = view.versions(&packages)?;
        Ok(Self {
            release: image
                .strip_prefix("linux-image-")
                .unwrap_or(&image)
                .to_owned(),
            packages,
            versions,
            types: cell.types,
        })
    }

    /// Names what is built from exactly this.
    fn key(&self) -> Result<String> {
        let text = format!("{}{:?}{MODULES:?}{RECIPE}", self.versions, self.types);
        let sum = sh::output(sh::command("sh").args([
            "-c",
            "printf %s \"$1\" | sha256sum",
            "sh",
            &text,
        ]))?;
        let zfs = self
            .versions
            .lines()
            .find_map(|line| line.strip_prefix("zfs-dkms "))
            .unwrap_or("unknown");
        Ok(format!("{}_zfs-{zfs}_{}", self.release, &sum[..12]))
    }
}

fn build(plan: &Plan, view: &View, folder: &Path) -> Result<()> {
    let start = Instant::now();
    let all = folder.join("all");
    view.unpack(&plan.packages, &folder.join("packages"), &all)?;
    say("packages", "downloaded and unpacked", start);
    let release = &plan.release;
    // Where /lib is a link to usr/lib, both lead to the same folder; in
    // unpacked packages they do not.
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .map(|below| all.join(below).join(release))
        .find(|path| path.join("kernel").is_dir())
        .with_context(|| format!("no modules of {release} in its package"))?;
    zfs(plan, folder, &all, &modules)?;
    let start = Instant::now();
    fs::copy(
        all.join(format!("boot/vmlinuz-{release}")),
        folder.join("vmlinuz"),
    )?;
    let root = folder.join("root.new");
    pick_modules(release, &modules, &root)?;
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
    fs::rename(root, folder.join("root"))?;
    fs::remove_dir_all(all)?;
    fs::remove_dir_all(folder.join("packages"))?;
    let _ = fs::remove_dir_all(folder.join("zfs"));
    say("root", "put together", start);
    Ok(())
}

/// Builds spl.ko and zfs.ko from the source that DKMS would build.
fn zfs(plan: &Plan, folder: &Path, all: &Path, modules: &Path) -> Result<()> {
    let release = &plan.release;
    let sources = all.join("usr/src");
    let find = |begins: &str, ends: &str| -> Result<PathBuf> {
        for entry in fs::read_dir(&sources)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(begins) && name.ends_with(ends) {
                return Ok(path);
            }
        }
        bail!("no {begins}*{ends} in {}", sources.display())
    };
    let headers = sources.join(format!("linux-headers-{release}"));
    let common = find("linux-headers-", "-common")?;
    // It includes the common part by an absolute path.
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile)?;
    let here = format!("include {}/", sources.display());
    fs::write(&makefile, text.replace("include /usr/src/", &here))?;
    let source = folder.join("zfs");
    sh::output(
        sh::command("cp")
            .arg("-a")
            .arg(find("zfs-", "")?)
            .arg(&source),
    )?;

    let start = Instant::now();
    let configure = format!(
        "./configure --with-config=kernel --disable-dependency-tracking --with-linux={} --with-linux-obj={}",
        common.display(),
        headers.display()
    );
    logged(&source, "configure", &configure)?;
    say("OpenZFS configure", "done", start);
    let start = Instant::now();
    logged(&source, "make", "make -j$(nproc)")?;
    say("OpenZFS make", "done", start);

    let extra = modules.join("extra");
    fs::create_dir_all(&extra)?;
    let built = sh::output(
        sh::command("find")
            .arg(source.join("module"))
            .args(["-name", "*.ko"]),
    )?;
    for module in built.lines() {
        let module = Path::new(module);
        let to = extra.join(module.file_name().unwrap_or_default());
        if plan.types == Types::Pahole {
            types_by_pahole(folder, all, release, module)?;
        }
        sh::output(
            sh::command("objcopy")
                .arg("--strip-debug")
                .arg(module)
                .arg(to),
        )?;
    }
    Ok(())
}

/// Adds a module's types to it; the kernel's own are in its image.
fn types_by_pahole(folder: &Path, all: &Path, release: &str, module: &Path) -> Result<()> {
    let vmlinux = folder.join("vmlinux");
    if !vmlinux.is_file() {
        let image = all.join(format!("boot/vmlinuz-{release}"));
        fs::write(&vmlinux, super::image::uncompressed(&image)?)?;
    }
    sh::output(
        sh::command("pahole")
            .args(["-J", "--btf_base"])
            .arg(&vmlinux)
            .arg(module),
    )?;
    Ok(())
}

/// Runs a step of the build; what it says goes to a file, and its end to the
/// error when it fails.
fn logged(folder: &Path, step: &str, line: &str) -> Result<()> {
    let log = folder.join(format!("{step}.log"));
    let file = fs::File::create(&log)?;
    let status = Command::new("sh")
        .args(["-c", line])
        .current_dir(folder)
        .stdout(file.try_clone()?)
        .stderr(file)
        .status()?;
    if !status.success() {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(15).collect();
        let end: Vec<_> = lines.into_iter().rev().collect();
        bail!("OpenZFS {step} ended with {status}:\n{}", end.join("\n"));
    }
    Ok(())
}

/// Copies the modules that the guest needs, and lists them anew.
fn pick_modules(release: &str, modules: &Path, root: &Path) -> Result<()> {
    // depmod and modprobe want lib/modules/RELEASE below a base.
    let base = modules.ancestors().nth(3).context("too short a path")?;
    sh::output(sh::command("depmod").arg("-b").arg(base).arg(release))?;
    let to = root.join("lib/modules").join(release);
    for module in MODULES {
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
            copy(path, &to)?;
            // The guest's processor is slow: unpacked here. What two modules
            // depend on comes twice.
            if to.extension().is_some_and(|end| end == "xz") {
                sh::output(sh::command("xz").args(["-d", "--force"]).arg(&to))?;
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
    if !to.join("extra/zfs.ko").is_file() {
        bail!("zfs.ko was not built");
    }
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
