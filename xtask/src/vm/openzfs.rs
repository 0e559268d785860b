//! OpenZFS's kernel modules, from the source that DKMS would build.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, bail};

use super::apt::View;
use super::build::kernel;
use super::buildroot::BuildRoot;
use super::matrix::Types;
use super::plan::Plan;
use super::say;
use crate::sh;

/// Whose compiler builds.
pub enum Place {
    /// This machine's.
    Machine,
    /// One of another release.
    Root(BuildRoot),
}

impl Place {
    /// The place that a plan asks for; made if it is not there.
    pub fn of(plan: &Plan, view: &View, cache: &Path) -> Result<Self> {
        if plan.tools.is_empty() {
            return Ok(Self::Machine);
        }
        BuildRoot::of(&plan.tools, view, cache).map(Self::Root)
    }

    /// How the build names a path below the unpacked packages.
    fn sees(&self, path: &Path, all: &Path) -> String {
        match (self, path.strip_prefix(all)) {
            (Self::Root(_), Ok(below)) => format!("/{}", below.display()),
            _ => path.display().to_string(),
        }
    }
}

/// Builds spl.ko and zfs.ko from the source that DKMS would build.
pub fn build(place: &Place, plan: &Plan, folder: &Path, all: &Path, modules: &Path) -> Result<()> {
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
    if let Place::Machine = place {
        // It includes the common part by an absolute path.
        let makefile = headers.join("Makefile");
        let text = fs::read_to_string(&makefile)?;
        let here = format!("include {}/", sources.display());
        fs::write(&makefile, text.replace("include /usr/src/", &here))?;
    }
    let source = folder.join("zfs");
    sh::output(
        sh::command("cp")
            .arg("-a")
            .arg(find("zfs-", "")?)
            .arg(&source),
    )?;

    let start = Instant::now();
    // Releases before 2.2 do not know the last and say so; Debian's own
    // builds set it, for kernels newer than this OpenZFS.
    let configure = format!(
        "./configure --with-config=kernel --disable-dependency-tracking --with-linux={} \
         --with-linux-obj={} --enable-linux-experimental",
        place.sees(&common, all),
        place.sees(&headers, all)
    );
    logged(place, all, &source, "configure", &configure)?;
    say("OpenZFS configure", "done", start);
    let start = Instant::now();
    logged(place, all, &source, "make", "make -j$(nproc)")?;
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
            types_by_pahole(folder, &kernel(all, modules, release)?, module)?;
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
fn types_by_pahole(folder: &Path, image: &Path, module: &Path) -> Result<()> {
    let vmlinux = folder.join("vmlinux");
    if !vmlinux.is_file() {
        fs::write(&vmlinux, super::image::uncompressed(image)?)?;
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
fn logged(place: &Place, all: &Path, folder: &Path, step: &str, line: &str) -> Result<()> {
    let log = folder.join(format!("{step}.log"));
    let file = fs::File::create(&log)?;
    let mut command = match place {
        Place::Machine => sh::command("sh"),
        Place::Root(root) => root.shell(all, folder)?,
    };
    let status = command
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
