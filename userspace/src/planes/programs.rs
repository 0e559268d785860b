//! Programs in the kernel, by the pins of an epoch.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use aya::{
    maps::{ArrayOfMaps, MapData},
    programs::{ProgramFd, ProgramInfo, SchedClassifier, Xdp},
};
use kldtrace_abi::plane::Link as Kind;

use super::{
    install::{Image, Programs},
    link::Direction,
    pins::{Pins, Shared, names},
};

/// The programs of an epoch.
#[derive(Debug)]
pub struct Set {
    /// Where they are pinned.
    folder: PathBuf,
    /// Rules that they can count.
    places: u32,
}

/// What a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct For {
    /// The number of the plane.
    pub plane: u8,
    /// Whether its packets begin with a header of Ethernet.
    pub ethernet: bool,
    /// Which packets it gets.
    pub direction: Direction,
}

impl For {
    fn name(self) -> String {
        let kind = if self.ethernet { "ethernet" } else { "bare" };
        format!("{}-{kind}-{}", self.plane, self.direction.as_str())
    }

    fn parse(name: &str) -> Option<Self> {
        let (plane, rest) = name.split_once('-')?;
        let (kind, direction) = rest.split_once('-')?;
        let found = Self {
            plane: plane.parse().ok()?,
            ethernet: kind == "ethernet",
            direction: if direction == "in" {
                Direction::In
            } else {
                Direction::Out
            },
        };
        (found.name() == name).then_some(found)
    }
}

impl Set {
    /// Those in a folder.
    pub fn new(folder: PathBuf, places: u32) -> Self {
        Self { folder, places }
    }

    /// Rules that they can count.
    pub fn places(&self) -> u32 {
        self.places
    }

    fn policy_pin(&self) -> PathBuf {
        self.folder.join("policy")
    }

    /// Loads what a plane needs for one kind of interface and pins it, unless
    /// that was done. Maps that are not there are made.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn load(&self, pins: &Pins, plane: u8, ethernet: bool) -> anyhow::Result<()> {
        let wanted = Direction::BOTH.map(|direction| For {
            plane,
            ethernet,
            direction,
        });
        let missing = |one: &For| !self.folder.join(one.name()).exists();
        if !wanted.iter().any(missing) {
            return Ok(());
        }
        let mut shared = pins.shared(self.places)?;
        shared.push(Shared {
            name: "PLANE_POLICY".to_owned(),
            path: self.policy_pin(),
        });
        let kind = if ethernet { Kind::Ethernet } else { Kind::Bare };
        let mut programs = Programs::load_sharing(plane, kind, self.places, false, &shared)?;
        for one in wanted.into_iter().filter(missing) {
            let pin = self.folder.join(one.name());
            let cannot = || format!("the program {} of the planes", one.name());
            let name = match one.direction {
                Direction::In => "plane_ingress",
                Direction::Out => "plane_egress",
            };
            let program = programs.ebpf.program_mut(name).with_context(cannot)?;
            match one.direction {
                Direction::In => {
                    let program: &mut Xdp = program.try_into()?;
                    program.load().with_context(cannot)?;
                    program.pin(&pin).with_context(cannot)?;
                }
                Direction::Out => {
                    let program: &mut SchedClassifier = program.try_into()?;
                    program.load().with_context(cannot)?;
                    program.pin(&pin).with_context(cannot)?;
                }
            }
        }
        Ok(())
    }

    /// A program that was loaded.
    ///
    /// # Errors
    /// When it was not.
    pub fn program(&self, which: For) -> anyhow::Result<ProgramFd> {
        let pin = self.folder.join(which.name());
        let program = ProgramInfo::from_pin(&pin);
        let program = program.with_context(|| format!("cannot open {}", pin.display()))?;
        Ok(program.fd()?)
    }

    /// The kernel's numbers of all programs, and what each is for.
    ///
    /// # Errors
    /// Without rights.
    pub fn programs(&self) -> anyhow::Result<HashMap<u32, For>> {
        let names = names(&self.folder)?;
        let programs = names.iter().filter_map(|name| For::parse(name));
        programs
            .map(|which| {
                let pin = self.folder.join(which.name());
                let info = ProgramInfo::from_pin(&pin);
                let info = info.with_context(|| format!("cannot open {}", pin.display()))?;
                Ok((info.id(), which))
            })
            .collect()
    }

    /// The outer map.
    ///
    /// # Errors
    /// When no program was loaded yet.
    pub fn policy(&self) -> anyhow::Result<ArrayOfMaps<MapData, Image>> {
        Ok(aya::maps::Map::ArrayOfMaps(self.policy_map()?).try_into()?)
    }

    /// The same, as it is.
    ///
    /// # Errors
    /// As [`Self::policy`].
    pub fn policy_map(&self) -> anyhow::Result<MapData> {
        let pin = self.policy_pin();
        MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))
    }

    /// Has all its programs judge by a policy that is pinned, in one update.
    ///
    /// # Errors
    /// What the kernel says; then they judge by the one before.
    pub fn judge_by(&self, image: &Path) -> anyhow::Result<()> {
        let map = MapData::from_pin(image);
        let map = map.with_context(|| format!("cannot open {}", image.display()))?;
        ensure!(
            map.info()?.value_size() as usize == super::install::VALUE,
            "{} is of another version",
            image.display()
        );
        let image: Image = aya::maps::Map::Array(map).try_into()?;
        Ok(self.policy()?.set(0, &image, 0)?)
    }

    /// Lets go of all of them. What is attached stays.
    ///
    /// # Errors
    /// Without rights.
    pub fn remove(self) -> anyhow::Result<()> {
        for name in names(&self.folder)? {
            remove(&self.folder.join(name))?;
        }
        fs::remove_dir(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))
    }
}

/// Removes a pin.
///
/// # Errors
/// Without rights.
pub fn remove(pin: &Path) -> anyhow::Result<()> {
    fs::remove_file(pin).with_context(|| format!("cannot remove {}", pin.display()))
}
