//! What is on disk: which policies there are, who applied them and when, and
//! until when one has to be confirmed.
//!
//! ```text
//! lock               whoever changes something has it
//! state.json         [`State`]
//! policies/N/        the policy of generation N ([`super::saved`])
//! ```
//!
//! Each is there as a whole or not at all, whenever the machine stops. What is
//! read back is checked like a stranger's.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{boot::Deadline, roots::Roots};
use crate::view::text::harmless;

/// Raised with each change of the file that older versions cannot read.
const FORMAT: u32 = 1;
/// The longest state that is read, in bytes.
const MOST: u64 = 1 << 20;
/// The longest name of a user or connection that is kept, in bytes.
const LONGEST: usize = 256;

/// What is known of planes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    format: u32,
    /// The highest generation that there has been: none has a number twice, as
    /// flows know policies by it.
    pub last: u32,
    /// The policy that is applied.
    pub current: Option<Applied>,
    /// The one before, while it can be returned to.
    pub previous: Option<Applied>,
    /// One that is being applied.
    pub next: Option<Applied>,
    /// Everything passes, by `panic-open`.
    pub opened: Option<Act>,
    /// The last policy that was taken back.
    pub taken_back: Option<TakenBack>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Applied {
    /// Its number.
    pub generation: u32,
    /// Who applied it.
    pub by: Act,
    /// When it is taken back, unless it is confirmed.
    pub confirm: Option<Confirm>,
}

/// Until when to confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// How long there is in all, in seconds.
    pub seconds: u32,
    /// The moment.
    pub deadline: Deadline,
}

/// A policy that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenBack {
    /// Its number.
    pub generation: u32,
    /// Who did it.
    pub by: Act,
    /// Why.
    pub why: Why,
}

/// Why a policy was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// By `rollback`.
    Asked,
    /// Nobody confirmed it in time.
    NotConfirmed,
}

/// Somebody, and when. Texts that are longer than 256 bytes are cut.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// Seconds since 1970, by the clock that people read.
    pub at: u64,
    /// The name of the user.
    pub user: String,
    /// Who he was before sudo.
    pub sudo_user: Option<String>,
    /// Where he sat: `SSH_CONNECTION`.
    pub ssh_connection: Option<String>,
}

impl Act {
    /// Whoever this process works for, now.
    pub fn now() -> Self {
        let user = nix::unistd::User::from_uid(nix::unistd::getuid());
        let user = user.ok().flatten().map(|user| user.name);
        let variable = |name| std::env::var(name).ok().map(|text| text_of(&text));
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: at.map_or(0, |time| time.as_secs()),
            user: text_of(&user.unwrap_or_else(|| nix::unistd::getuid().to_string())),
            sudo_user: variable("SUDO_USER"),
            ssh_connection: variable("SSH_CONNECTION"),
        }
    }
}

/// Text that a terminal takes, and not too long.
fn text_of(text: &str) -> String {
    let mut text = harmless(text);
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

/// Whoever has it is the only one who changes planes.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    fn file(roots: &Roots) -> anyhow::Result<File> {
        let folder = &roots.state;
        private_folder(folder)?;
        let path = folder.join("lock");
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path);
        file.with_context(|| format!("cannot open {}", path.display()))
    }

    /// Takes it. Where somebody else has it, waits for it, at most so long.
    ///
    /// # Errors
    /// When somebody else has it still, or without rights.
    pub fn wait(roots: &Roots, most: Duration) -> anyhow::Result<Self> {
        const STEP: Duration = Duration::from_millis(10);
        let file = Self::file(roots)?;
        let began = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if began.elapsed() < most => {
                    std::thread::sleep(STEP);
                }
                Err(TryLockError::WouldBlock) => bail!(
                    "another kldtrace is changing the planes (it has {}): try again",
                    roots.state.join("lock").display()
                ),
                Err(TryLockError::Error(error)) => {
                    return Err(error).context("cannot lock the planes");
                }
            }
        }
    }
}

impl State {
    /// Reads it; without a file, there is nothing yet.
    ///
    /// # Errors
    /// For a file that cannot be read, or is none of ours.
    pub fn load(roots: &Roots) -> anyhow::Result<Self> {
        let path = roots.state.join("state.json");
        let Some(bytes) = read_at_most(&path, MOST)? else {
            return Ok(Self {
                format: FORMAT,
                ..Self::default()
            });
        };
        Self::parse(&bytes).with_context(|| {
            format!(
                "{} is damaged, or another version's (`kldtrace planes apply` with it moved \
                 away begins anew)",
                path.display()
            )
        })
    }

    /// Reads it from bytes.
    ///
    /// # Errors
    /// For what no state can be.
    pub fn parse(bytes: &[u8]) -> anyhow::Result<Self> {
        let state: Self = serde_json::from_slice(bytes)?;
        ensure!(state.format == FORMAT, "format {}", state.format);
        let mut generations = Vec::new();
        for applied in state.policies() {
            let generation = applied.generation;
            ensure!(
                generation != 0 && generation <= state.last && !generations.contains(&generation),
                "generation {generation}"
            );
            generations.push(generation);
        }
        let acts = state.policies().map(|applied| &applied.by);
        let acts = acts.chain(&state.opened);
        for act in acts.chain(state.taken_back.iter().map(|taken| &taken.by)) {
            let texts = [
                Some(&act.user),
                act.sudo_user.as_ref(),
                act.ssh_connection.as_ref(),
            ];
            for text in texts.into_iter().flatten() {
                ensure!(*text == text_of(text), "a name that no terminal takes");
            }
        }
        Ok(state)
    }

    /// All policies that it knows of.
    pub fn policies(&self) -> impl Iterator<Item = &Applied> {
        self.current.iter().chain(&self.previous).chain(&self.next)
    }

    /// Writes it, so that it is on disk.
    ///
    /// # Errors
    /// When the disk is full, or without rights.
    pub fn save(&self, roots: &Roots, _: &Lock) -> anyhow::Result<()> {
        let bytes = serde_json::to_vec_pretty(self)?;
        let path = roots.state.join("state.json");
        let written = || {
            let new = roots.state.join("state.json.new");
            write_synced(&new, &bytes)?;
            fs::rename(&new, &path)?;
            sync_folder(&roots.state)
        };
        written().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Makes a folder for root alone.
pub(super) fn private_folder(folder: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let made = builder.create(folder);
    made.with_context(|| format!("cannot make {}", folder.display()))
}

/// Writes a file, so that its bytes are on disk.
pub(super) fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Has the names in a folder on disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads a file; `None`: there is none.
pub(super) fn read_at_most(path: &Path, most: u64) -> anyhow::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut bytes = Vec::new();
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    ensure!(
        bytes.len() as u64 <= most,
        "{} is larger than {most} bytes",
        path.display()
    );
    Ok(Some(bytes))
}
