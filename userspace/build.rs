//! Builds the probes for the BPF target and hands their object file to the
//! loader, which includes it.

use anyhow::{Context as _, anyhow};
use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    // -Z build-std wants a nightly compiler or this; it is set for the build
    // of the probes only, not for the crates of the host.
    // SAFETY: a build script has one thread here.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
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
        Toolchain::Custom(&std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "1.95.0".into())),
    )
}
