//! Policies on disk, each with all that it was made from: the file, those of
//! its sets, and the numbers of its planes and rules. So it can be returned to
//! when those files are others.

use std::{
    cell::RefCell,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail, ensure};

use super::{
    compile::{self, Compiled},
    numbers::Numbers,
    policy::Policy,
    read::{self, MAX_FILE, MAX_SET, read_at_most},
    roots::Roots,
    state::{private_folder, sync_folder, write_synced},
};

/// Files of sets that a policy may have.
const MOST_FILES: usize = 10_000;
/// The longest file of numbers and names that is read, in bytes.
const MOST_NUMBERS: u64 = 256 << 20;

/// A policy's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The policy.
    pub text: String,
    /// Its sets, by the path that it names.
    pub sets: Vec<(PathBuf, Vec<u8>)>,
}

impl Files {
    /// Reads a policy, and keeps what was read.
    ///
    /// # Errors
    /// As [`read::load`].
    pub fn load(path: &Path) -> anyhow::Result<(Self, Policy)> {
        let origin = path.display().to_string();
        let bytes = read_at_most(path, MAX_FILE);
        let bytes = bytes.with_context(|| format!("{origin}: cannot be read"))?;
        let text = String::from_utf8(bytes);
        let text = text.with_context(|| format!("{origin}: not UTF-8, which TOML must be"))?;
        let sets = RefCell::new(Vec::new());
        let policy = read::parse(&text, &origin, &|path| {
            let bytes = read_at_most(path, MAX_SET)?;
            sets.borrow_mut().push((path.to_owned(), bytes.clone()));
            Ok(bytes)
        })?;
        let sets = sets.into_inner();
        Ok((Self { text, sets }, policy))
    }

    /// The policy in it.
    ///
    /// # Errors
    /// As [`read::parse`].
    pub fn policy(&self, origin: &str) -> anyhow::Result<Policy> {
        let policy = read::parse(&self.text, origin, &|path| {
            let set = self.sets.iter().find(|(name, _)| name == path);
            let set = set.map(|(_, bytes)| bytes.clone());
            set.ok_or_else(|| io::ErrorKind::NotFound.into())
        })?;
        Ok(policy)
    }
}

/// A policy with its numbers.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Its files.
    pub files: Files,
    /// The policy in them, with its planes' numbers.
    pub policy: Policy,
    /// The numbers.
    pub numbers: Numbers,
}

fn folder(roots: &Roots, generation: u32) -> PathBuf {
    roots.state.join("policies").join(generation.to_string())
}

impl Saved {
    /// Its image.
    ///
    /// # Errors
    /// For one that is too large, or has other rules than it had.
    pub fn compile(&self, generation: u32) -> anyhow::Result<Compiled> {
        let mut compiled = compile::image(&self.policy, generation)?;
        self.numbers.again_in(&mut compiled)?;
        Ok(compiled)
    }

    /// Writes it, so that it is on disk.
    ///
    /// # Errors
    /// When the disk is full, or without rights.
    pub fn save(&self, roots: &Roots, generation: u32) -> anyhow::Result<()> {
        ensure!(
            self.files.sets.len() <= MOST_FILES,
            "sets in more than {MOST_FILES} files"
        );
        let folder = folder(roots, generation);
        let policies = roots.state.join("policies");
        private_folder(&policies)?;
        let new = policies.join("new");
        let paths: Vec<_> = self.files.sets.iter().map(|(path, _)| path).collect();
        let names = serde_json::to_vec(&paths)?;
        let numbers = serde_json::to_vec(&self.numbers)?;
        let written = || -> io::Result<()> {
            for old in [&new, &folder] {
                if old.exists() {
                    fs::remove_dir_all(old)?;
                }
            }
            fs::create_dir(&new)?;
            write_synced(&new.join("policy.toml"), self.files.text.as_bytes())?;
            write_synced(&new.join("numbers.json"), &numbers)?;
            write_synced(&new.join("sets.json"), &names)?;
            for (number, (_, bytes)) in self.files.sets.iter().enumerate() {
                write_synced(&new.join(format!("set-{number}")), bytes)?;
            }
            sync_folder(&new)?;
            fs::rename(&new, &folder)?;
            sync_folder(&policies)
        };
        written().with_context(|| format!("cannot write {}", folder.display()))
    }

    /// Reads the numbers of one, without its policy.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub fn numbers_of(roots: &Roots, generation: u32) -> anyhow::Result<Numbers> {
        let path = folder(roots, generation).join("numbers.json");
        let bytes = read_at_most(&path, MOST_NUMBERS);
        let numbers = bytes.map_err(anyhow::Error::from);
        numbers
            .and_then(|bytes| Ok(serde_json::from_slice(&bytes)?))
            .with_context(|| format!("{} cannot be read or is damaged", path.display()))
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is not there, or damaged.
    pub fn load(roots: &Roots, generation: u32) -> anyhow::Result<Self> {
        let folder = folder(roots, generation);
        let read = |name: &str, most| {
            let path = folder.join(name);
            read_at_most(&path, most).with_context(|| format!("cannot read {}", path.display()))
        };
        let damaged = || format!("the policy in {} is damaged", folder.display());
        let text = String::from_utf8(read("policy.toml", MAX_FILE)?).with_context(damaged)?;
        let numbers = Self::numbers_of(roots, generation)?;
        let paths: Vec<PathBuf> =
            serde_json::from_slice(&read("sets.json", MOST_NUMBERS)?).with_context(damaged)?;
        if paths.len() > MOST_FILES {
            bail!(damaged());
        }
        let sets = paths.into_iter().enumerate();
        let sets = sets.map(|(number, path)| Ok((path, read(&format!("set-{number}"), MAX_SET)?)));
        let files = Files {
            text,
            sets: sets.collect::<anyhow::Result<_>>()?,
        };
        let origin = folder.join("policy.toml").display().to_string();
        let mut policy = files.policy(&origin)?;
        numbers.again(&mut policy).with_context(damaged)?;
        Ok(Self {
            files,
            policy,
            numbers,
        })
    }

    /// Removes all but some.
    ///
    /// # Errors
    /// Without rights.
    pub fn keep_only(roots: &Roots, generations: &[u32]) -> anyhow::Result<()> {
        let policies = roots.state.join("policies");
        for name in super::pins::names(&policies)? {
            let generation = name.parse::<u32>().ok();
            if !generation.is_some_and(|generation| generations.contains(&generation)) {
                let path = policies.join(&name);
                fs::remove_dir_all(&path)
                    .with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}
