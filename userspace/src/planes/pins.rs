//! What is in the kernel and stays there when no process has it:
//!
//! ```text
//! maps/NAME-HASH             what outlives policies and versions: flows, counts, ...
//! images/GENERATION          policies
//! epochs/N-HASH-PLACES/      one set of programs:
//!     policy                   the outer map, whose only entry is the policy
//!     PLANE-KIND-in, -out      programs of a plane for one kind of interface
//! links/INDEX-in, -out       what is attached to an interface
//! ```
//!
//! Programs see their maps as they were loaded. So where programs cannot stay,
//! because they are another version's or count in too small a map, a second
//! epoch is made beside the first, its maps and policy complete, and links are
//! taken over to its programs one by one. The highest epoch is the one that is
//! valid. Maps have a hash of their form in their name: of another form, they
//! are others.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::maps::{ArrayOfMaps, MapData, PerCpuArray, RingBuf};
use aya_obj::Object;
use kldtrace_abi::{
    loss::Loss,
    plane::{LAYOUT, count::counters},
};

use super::{install::Counts, roots::Roots};
use crate::kernel::object::PLANE;

/// Maps that each program has for itself.
const OWN: [&str; 2] = ["PLANE_POLICY", "PLANE_SEEN"];

/// The pins below one folder.
#[derive(Clone, Debug)]
pub struct Pins {
    root: PathBuf,
}

/// One set of programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch {
    /// Its number.
    pub number: u32,
    /// Of the object file that its programs are from.
    pub hash: u32,
    /// Rules that can be counted.
    pub places: u32,
}

impl Epoch {
    fn name(&self) -> String {
        format!("{}-{:08x}-{}", self.number, self.hash, self.places)
    }

    fn parse(name: &str) -> Option<Self> {
        let mut words = name.split('-');
        let epoch = Self {
            number: words.next()?.parse().ok()?,
            hash: u32::from_str_radix(words.next()?, 16).ok()?,
            places: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(epoch)
    }
}

/// A map that programs share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shared {
    /// Its name in the programs.
    pub name: String,
    /// Where it is pinned.
    pub path: PathBuf,
}

impl Pins {
    /// Those of a pair of roots.
    pub fn new(roots: &Roots) -> Self {
        Self {
            root: roots.pins.clone(),
        }
    }

    /// The folder of shared maps.
    pub fn maps(&self) -> PathBuf {
        self.root.join("maps")
    }

    /// The folder of links.
    pub fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The folder of policies.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where a policy is pinned.
    pub fn image(&self, generation: u32) -> PathBuf {
        self.images().join(generation.to_string())
    }

    /// The folder of an epoch's programs.
    pub fn epoch(&self, epoch: &Epoch) -> PathBuf {
        self.root.join("epochs").join(epoch.name())
    }

    /// Where an epoch is made ready.
    pub fn next_epoch(&self) -> PathBuf {
        self.root.join("epochs").join("next")
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// Without a BPF file system, or rights.
    pub fn make_folders(&self) -> anyhow::Result<()> {
        for folder in ["maps", "images", "epochs", "links"] {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(())
    }

    /// The epochs that there are, the valid one last.
    ///
    /// # Errors
    /// Without rights.
    pub fn epochs(&self) -> anyhow::Result<Vec<Epoch>> {
        let names = names(&self.root.join("epochs"))?;
        let mut epochs: Vec<_> = names.iter().filter_map(|name| Epoch::parse(name)).collect();
        epochs.sort();
        Ok(epochs)
    }

    /// The generations whose policies are pinned.
    ///
    /// # Errors
    /// Without rights.
    pub fn generations(&self) -> anyhow::Result<Vec<u32>> {
        let names = names(&self.images())?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The policy that judges packets now, by its generation; 0: one that is
    /// not pinned; `None`: none does, and all pass.
    ///
    /// # Errors
    /// Without rights.
    pub fn generation(&self) -> anyhow::Result<Option<u32>> {
        let Some(epoch) = self.epochs()?.pop() else {
            return Ok(None);
        };
        let Some(image) = inner(&self.epoch(&epoch).join("policy"))? else {
            return Ok(None);
        };
        for generation in self.generations()? {
            if map_id(&self.image(generation))? == image {
                return Ok(Some(generation));
            }
        }
        Ok(Some(0))
    }

    /// What programs of this version share, if so many rules can be counted.
    ///
    /// # Errors
    /// For an object file that is none.
    pub fn shared(&self, places: u32) -> anyhow::Result<Vec<Shared>> {
        let object = Object::parse(PLANE.elf).context("the planes' programs")?;
        let maps = object.maps.iter();
        let shared = maps.filter(|(name, _)| !name.starts_with('.') && !OWN.contains(&&***name));
        let mut shared: Vec<_> = shared
            .map(|(name, map)| {
                let counts = name == "PLANE_COUNTS";
                let entries = if counts {
                    counters(places)
                } else {
                    map.max_entries()
                };
                let form = format!(
                    "{LAYOUT} {} {} {} {entries} {:x}",
                    map.map_type(),
                    map.key_size(),
                    map.value_size(),
                    map.map_flags()
                );
                let short = name.trim_start_matches("PLANE_").to_lowercase();
                let hash = crc32fast::hash(form.as_bytes());
                Shared {
                    path: self.maps().join(format!("{short}-{hash:08x}")),
                    name: name.clone(),
                }
            })
            .collect();
        shared.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(shared)
    }

    /// Opens a map that the valid programs share; `None`: there are none.
    ///
    /// # Errors
    /// When it is not there, or the programs are another version's, or without
    /// rights.
    pub fn open(&self, name: &str) -> anyhow::Result<Option<MapData>> {
        let Some(epoch) = self.epochs()?.pop() else {
            return Ok(None);
        };
        let shared = self.shared(epoch.places)?;
        let shared = shared.into_iter().find(|shared| shared.name == name);
        let path = shared.with_context(|| format!("no map {name}"))?.path;
        let map =
            MapData::from_pin(&path).with_context(|| format!("cannot open {}", path.display()));
        map.map(Some)
    }

    /// What planes and rules have counted in a map for so many rules; `None`:
    /// there is none.
    ///
    /// # Errors
    /// Without rights.
    pub fn counts_of(&self, places: u32) -> anyhow::Result<Option<Counts>> {
        let shared = self.shared(places)?;
        let shared = shared.into_iter().find(|map| map.name == "PLANE_COUNTS");
        let path = shared.context("no map PLANE_COUNTS")?.path;
        if !path.exists() {
            return Ok(None);
        }
        let map = MapData::from_pin(path)?;
        Counts::new(aya::maps::Map::PerCpuArray(map)).map(Some)
    }

    /// What planes and rules have counted.
    ///
    /// # Errors
    /// As for each map: when it is not there, the programs are another
    /// version's, or without rights.
    pub fn counts(&self) -> anyhow::Result<Option<Counts>> {
        let map = self.open("PLANE_COUNTS")?;
        map.map(|map| Counts::new(aya::maps::Map::PerCpuArray(map)))
            .transpose()
    }

    /// The packets that are told of. Whoever reads them takes them.
    ///
    /// # Errors
    /// As [`Self::counts`].
    pub fn told(&self) -> anyhow::Result<Option<RingBuf<MapData>>> {
        let map = self.open("PLANE_TOLD")?;
        let ring = map.map(|map| RingBuf::try_from(aya::maps::Map::RingBuf(map)));
        Ok(ring.transpose()?)
    }

    /// What the programs lost, over all CPUs.
    ///
    /// # Errors
    /// As [`Self::counts`].
    pub fn losses(&self) -> anyhow::Result<Vec<(Loss, u64)>> {
        let Some(map) = self.open("LOSSES")? else {
            return Ok(Vec::new());
        };
        let map: PerCpuArray<_, u64> = aya::maps::Map::PerCpuArray(map).try_into()?;
        let losses = Loss::ALL.into_iter();
        losses
            .map(|loss| Ok((loss, map.get(&(loss as u32), 0)?.iter().sum())))
            .collect()
    }
}

/// Tells the programs of this version from others.
pub fn object_hash() -> u32 {
    crc32fast::hash(PLANE.elf)
}

/// The names in a folder; none, if there is no folder.
///
/// # Errors
/// Without rights.
pub fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", folder.display()));
        }
    };
    let entries = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    entries
        .collect::<io::Result<_>>()
        .with_context(|| format!("cannot read {}", folder.display()))
}

/// The kernel's number of a pinned map.
fn map_id(path: &Path) -> anyhow::Result<u32> {
    let map = MapData::from_pin(path);
    let map = map.with_context(|| format!("cannot open {}", path.display()))?;
    Ok(map.info()?.id())
}

/// The number of the map that a pinned outer map points to.
fn inner(path: &Path) -> anyhow::Result<Option<u32>> {
    let map = MapData::from_pin(path);
    let map = map.with_context(|| format!("cannot open {}", path.display()))?;
    let outer: ArrayOfMaps<MapData> = aya::maps::Map::ArrayOfMaps(map).try_into()?;
    match outer.get(&0, 0) {
        Ok(inner) => Ok(Some(inner.info()?.id())),
        Err(aya::maps::MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
