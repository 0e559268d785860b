//! Shared libraries that programs of this machine need in a guest.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::build::{LOADER, copy};

/// Where a guest's libraries are.
const FOLDER: &str = "lib/x86_64-linux-gnu";

/// Copies the libraries of programs into a tree.
pub struct Libraries<'a> {
    /// Folder with the libraries that the guest has of its own.
    own: PathBuf,
    /// The loader of these, where they are not this machine's.
    loader: Option<PathBuf>,
    tree: &'a Path,
    /// Those that are there already, by their paths in the guest.
    there: &'a BTreeSet<PathBuf>,
    done: BTreeSet<PathBuf>,
}

impl<'a> Libraries<'a> {
    /// For programs in `tree`, of a guest that is made of `root` and has what
    /// is `there`.
    pub fn new(root: &Path, tree: &'a Path, there: &'a BTreeSet<PathBuf>) -> Self {
        Self {
            own: root.join(FOLDER),
            loader: Some(root.join(LOADER)).filter(|loader| loader.exists()),
            tree,
            there,
            done: BTreeSet::new(),
        }
    }

    /// Copies those that a program needs.
    ///
    /// # Errors
    /// When they cannot be listed or copied.
    pub fn of(&mut self, program: &Path) -> Result<()> {
        // A C library that the guest brings along needs its own loader; ldd
        // would start this machine's.
        let mut list = if let Some(loader) = &self.loader {
            let mut list = Command::new(loader);
            list.arg("--library-path").arg(&self.own).arg("--list");
            list
        } else {
            let mut list = Command::new("ldd");
            list.env("LD_LIBRARY_PATH", &self.own);
            list
        };
        let output = list
            .arg(program)
            .output()
            .context("cannot list the libraries of a program")?;
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            if library.starts_with(&self.own) || !self.done.insert(library.clone()) {
                continue;
            }
            // The place where the loader looks without a cache.
            let name = library.file_name().unwrap_or_default();
            let folder = if name.to_string_lossy().starts_with("ld-linux") {
                "lib64"
            } else {
                FOLDER
            };
            let place = Path::new(folder).join(name);
            if !self.there.contains(&place) {
                copy(&library.canonicalize()?, &self.tree.join(place))?;
            }
        }
        Ok(())
    }
}

/// Paths in what ldd prints; a static program has none.
fn libraries(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| {
            let path = match line.split_once("=>") {
                Some((_, path)) => path,
                None => line,
            };
            let path = path.split_whitespace().next()?;
            path.starts_with('/').then(|| PathBuf::from(path))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \tlibzfs.so.6 => not found\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            libraries(text),
            [
                PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"),
                PathBuf::from("/lib64/ld-linux-x86-64.so.2")
            ]
        );
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }
}
