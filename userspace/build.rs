//! Builds the probes for the BPF target and hands their object file to the
//! loader, which includes it; lists the dashboards that the bundle includes.

use std::{env, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, anyhow, bail};
use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    // -Z build-std wants a nightly compiler or this; it is set for the build
    // of the probes only, not for the crates of the host.
    // SAFETY: a build script has one thread here.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    list_dashboards()?;
    let metadata = cargo_metadata::MetadataCommand::new()
        .no_deps()
        .exec()
        .context("cargo metadata")?;
    let probes = metadata
        .packages
        .into_iter()
        .find(|package| package.name.as_str() == "kldtrace-probes")
        .ok_or_else(|| anyhow!("no package kldtrace-probes in the workspace"))?;
    let root = probes
        .manifest_path
        .parent()
        .ok_or_else(|| anyhow!("no folder for {}", probes.manifest_path))?;
    println!("cargo:rerun-if-changed={root}/abi/src");
    aya_build::build_ebpf(
        [Package {
            name: "kldtrace-probes",
            root_dir: root.as_str(),
            ..Package::default()
        }],
        // The toolchain of rust-toolchain.toml, which this build runs with.
        Toolchain::Custom(&env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.95.0".into())),
    )
}

/// Every file of dashboards/json/ with its name, as a slice of `Source`: a
/// dashboard is one file, and nobody forgets to name it.
fn list_dashboards() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/json");
    println!("cargo:rerun-if-changed={}", folder.display());
    let cannot = || format!("cannot read {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(&folder).with_context(cannot)? {
        paths.push(entry.with_context(cannot)?.path());
    }
    paths.sort();
    let mut list = "&[".to_owned();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(name), Some(path), true) = (
            name,
            path.to_str(),
            path.extension() == Some("json".as_ref()),
        ) else {
            bail!("{} is no dashboard", path.display());
        };
        write!(
            list,
            "Source {{ name: {name:?}, text: include_str!({path:?}) }},"
        )?;
    }
    list.push(']');
    let out = Path::new(&env::var("OUT_DIR")?).join("dashboards.rs");
    fs::write(&out, list).with_context(|| format!("cannot write {}", out.display()))
}
