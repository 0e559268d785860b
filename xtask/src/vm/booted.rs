//! Guests that have booted, as QEMU saves them: kept by what they were made of,
//! and each run goes on from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::build::{self, Parts};
use super::initramfs::Root;
use super::{given, qemu, say, scratch};
use crate::sh;

/// A guest's root, and itself behind its boot.
#[derive(Debug)]
pub struct Booted {
    /// What it is made of.
    pub parts: Parts,
    /// What it was booted from: QEMU wants it again.
    pub root: Root,
    /// What its kernel was told beside its usual arguments.
    pub arguments: &'static str,
    /// What QEMU saved.
    pub state: PathBuf,
}

/// A guest with this root, from the cache or booted now.
///
/// # Errors
/// When it does not boot.
pub fn guest(parts: Parts, root: Root, arguments: &'static str) -> Result<Booted> {
    let cache = build::cache();
    let name = name(&parts, &root, arguments)?;
    let folder = cache.join(&name);
    let state = folder.join("state");
    if !state.is_file() {
        let start = Instant::now();
        let making = scratch::folder(&cache, "booting");
        let _ = fs::remove_dir_all(&making);
        fs::create_dir_all(&making)?;
        boot(&parts, &root, arguments, &making)?;
        // Another run may have been quicker.
        let moved = fs::rename(&making, &folder);
        let _ = fs::remove_dir_all(&making);
        if !state.is_file() {
            moved.with_context(|| format!("cannot make {}", folder.display()))?;
        }
        remove_older(&cache, &name)?;
        say("boot", "kept for the next time", start);
    }
    Ok(Booted {
        parts,
        root,
        arguments,
        state,
    })
}

/// Names a guest by all that it is made of. What is in front of the last `_`
/// is the same for those that take each other's place.
fn name(parts: &Parts, root: &Root, arguments: &str) -> Result<String> {
    let archive = sh::output(sh::command("sha256sum").arg("--binary").arg(&root.archive))?;
    let (archive, _) = archive.split_once(' ').context("sha256sum says nothing")?;
    let version = sh::output(sh::command(qemu::PROGRAM).arg("--version"))?;
    let machine = (
        qemu::machine(parts, arguments),
        (qemu::DISKS, qemu::DISK, given::SIZE),
    );
    let kind = sh::sum(arguments)?;
    let sum = sh::sum(&format!(
        "{archive} {version} {machine:?} {}",
        parts.kernel.display()
    ))?;
    Ok(format!(
        "{}_booted-{}_{}",
        parts.release,
        &kind[..4],
        &sum[..12]
    ))
}

/// Now and then emulation crashes a kernel during its boot.
fn boot(parts: &Parts, root: &Root, arguments: &str, folder: &Path) -> Result<()> {
    for _ in 0..2 {
        match qemu::boot(parts, root, arguments, folder) {
            Err(error) => println!("booting again: {error:#}"),
            done => return done,
        }
    }
    qemu::boot(parts, root, arguments, folder)
}

/// Removes what this one takes the place of: some 200 MB each.
fn remove_older(cache: &Path, name: &str) -> Result<()> {
    let (kind, _) = name.rsplit_once('_').unwrap_or((name, ""));
    for entry in fs::read_dir(cache)? {
        let entry = entry?;
        let other = entry.file_name().to_string_lossy().into_owned();
        if other != name && other.rsplit_once('_').is_some_and(|(of, _)| of == kind) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_takes_the_place_of_those_of_its_kind() {
        let cache = std::env::temp_dir().join(format!("kldtrace-booted-{}", std::process::id()));
        let all = [
            "6.12_booted-aa_1",
            "6.12_booted-aa_2",
            "6.12_booted-bb_1",
            "6.1_booted-aa_1",
        ];
        for name in all {
            fs::create_dir_all(cache.join(name)).unwrap();
        }
        remove_older(&cache, all[1]).unwrap();
        let left = all.map(|name| cache.join(name).exists());
        assert_eq!(left, [false, true, true, true]);
        fs::remove_dir_all(cache).unwrap();
    }
}
