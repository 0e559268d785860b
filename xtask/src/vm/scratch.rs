//! Folders of the cache in which something is being made, whole or not at all:
//! it is moved to its place at the end.

use std::path::{Path, PathBuf};
use std::{fs, process};

use anyhow::{Context as _, Result};

/// What their names begin with; the number of the process that makes it follows.
const BEGINS: [&str; 4] = ["booting", "building", "making", "modules"];

/// The folder for one of [`BEGINS`] of this process.
pub fn folder(cache: &Path, begins: &str) -> PathBuf {
    debug_assert!(BEGINS.contains(&begins));
    cache.join(format!("{begins}-{}", process::id()))
}

/// Removes those of processes that have ended: they were interrupted.
///
/// # Errors
/// When the cache cannot be read, or one of them not be removed.
pub fn remove_left_behind(cache: &Path) -> Result<()> {
    for entry in fs::read_dir(cache).with_context(|| cache.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((begins, process)) = name.split_once('-') else {
            continue;
        };
        let is_number = process.parse::<u32>().is_ok();
        if BEGINS.contains(&begins) && is_number && !Path::new("/proc").join(process).exists() {
            eprintln!(
                "vm: {}: left by an interrupted run, removed",
                path.display()
            );
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_makes_any_more_is_removed() {
        let cache = std::env::temp_dir().join(format!("kldtrace-scratch-{}", process::id()));
        // Beyond what the kernel gives out (PID_MAX_LIMIT).
        let dead = ["building-4194305", "modules-4194305", "making-4194305"];
        let stays = ["building-x", "6.1_modules_19c0", "apt-sid", "other-4194305"];
        let own = BEGINS.map(|begins| folder(&cache, begins));
        for name in dead.iter().chain(&stays) {
            fs::create_dir_all(cache.join(name).join("all")).unwrap();
        }
        for path in &own {
            fs::create_dir(path).unwrap();
        }
        remove_left_behind(&cache).unwrap();
        assert!(dead.iter().all(|name| !cache.join(name).exists()));
        assert!(stays.iter().all(|name| cache.join(name).exists()));
        assert!(own.iter().all(|path| path.exists()));
        fs::remove_dir_all(cache).unwrap();
    }
}
