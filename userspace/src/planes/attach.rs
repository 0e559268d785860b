//! Which programs are on which interfaces, against which should be.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    os::fd::AsFd as _,
    path::PathBuf,
};

use anyhow::{Context as _, bail};

use super::{
    interfaces::Interface,
    link::{self, Direction, Info, Link},
    pins::{Pins, names},
    policy::Policy,
    programs::{For, Set, remove},
};
use crate::words::matches;

/// A link that is pinned.
#[derive(Debug)]
pub struct Held {
    /// Where.
    pub pin: PathBuf,
    /// The link.
    pub link: Link,
    /// What the kernel says of it.
    pub info: Info,
}

/// Where a link's interface is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this namespace.
    Here,
    /// In another one.
    Away,
    /// It was deleted.
    Gone,
}

/// How the names of links begin whose interface is in another namespace.
const AWAY: &str = "away";

/// All links that are pinned.
///
/// # Errors
/// Without rights.
pub fn held(pins: &Pins) -> anyhow::Result<Vec<Held>> {
    held_by(pins, |_| true)
}

/// Whether an interface was deleted after it moved to another namespace, where
/// nobody tells this one of it.
///
/// # Errors
/// Without rights.
pub fn ended_away(pins: &Pins) -> anyhow::Result<bool> {
    let away = held_by(pins, |name| name.starts_with(AWAY))?;
    Ok(away.iter().any(|held| held.info.interface == 0))
}

fn held_by(pins: &Pins, is_asked_for: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Held>> {
    let folder = pins.links();
    let mut held = Vec::new();
    for name in names(&folder)? {
        if !is_asked_for(&name) {
            continue;
        }
        let pin = folder.join(name);
        let cannot = || format!("cannot open {}", pin.display());
        let link = match Link::open(&pin) {
            // Whoever has the lock may have let go of it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.with_context(cannot)?,
        };
        let info = link.info().with_context(cannot)?;
        held.push(Held { pin, link, info });
    }
    Ok(held)
}

/// Where a link's interface is. An index alone does not tell: another
/// namespace may have the same.
pub fn place(info: &Info, interfaces: &[Interface]) -> Place {
    if info.interface == 0 {
        return Place::Gone;
    }
    let mut here = interfaces.iter();
    let Some(interface) = here.find(|interface| interface.index == info.interface) else {
        return Place::Away;
    };
    let is_here = match info.direction {
        Direction::In => interface.xdp.is_some_and(|xdp| xdp.program == info.program),
        Direction::Out => link::leaving(info.interface).is_ok_and(|links| links.contains(&info.id)),
    };
    if is_here { Place::Here } else { Place::Away }
}

/// The plane of an interface: the first that names it.
pub fn plane_of<'a>(policy: &'a Policy, interface: &str) -> Option<&'a super::policy::Plane> {
    let mut planes = policy.planes.iter();
    planes.find(|plane| {
        let mut patterns = plane.interfaces.iter();
        patterns.any(|pattern| matches(pattern, interface))
    })
}

/// The interfaces of a policy's planes, and their planes' numbers.
pub fn wanted<'a>(policy: &Policy, interfaces: &'a [Interface]) -> Vec<(&'a Interface, u8)> {
    let all = interfaces.iter();
    all.filter_map(|interface| Some((interface, plane_of(policy, &interface.name)?.number)))
        .collect()
}

/// A step towards what should be.
#[derive(Debug)]
pub enum Change {
    /// A program comes to an interface.
    Attach {
        /// The index of the interface.
        index: u32,
        /// Its name.
        name: String,
        /// The program.
        program: For,
    },
    /// A link gets another program.
    Replace {
        /// The link.
        held: Held,
        /// The program.
        program: For,
    },
    /// A link ends: its interface is gone, or of no plane.
    End(Held),
    /// A link keeps its place in another namespace, under another name.
    SetAside(Held),
    /// A link is back, and gets its name again.
    TakeBack(Held),
}

impl Change {
    /// Does it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn make(self, pins: &Pins, set: &Set) -> anyhow::Result<()> {
        match self {
            Self::Attach {
                index,
                name,
                program,
            } => attach(pins, set, index, &name, program),
            Self::Replace { held, program } => {
                set.load(pins, program.plane, program.ethernet)?;
                let fd = set.program(program)?;
                match held.link.replace(fd.as_fd()) {
                    Ok(()) => Ok(()),
                    // It was deleted meanwhile: the next look finds that.
                    Err(error) if gone(&error) => Ok(()),
                    Err(error) => Err(error).with_context(|| {
                        format!("cannot replace the program of {}", held.pin.display())
                    }),
                }
            }
            Self::End(held) => remove(&held.pin),
            Self::SetAside(held) => {
                let name = format!("{AWAY}{}-{}", held.info.id, held.info.direction.as_str());
                rename(&held, pins.links().join(name))
            }
            Self::TakeBack(held) => {
                let to = pin(pins, held.info.interface, held.info.direction);
                rename(&held, to)
            }
        }
    }
}

fn rename(held: &Held, to: PathBuf) -> anyhow::Result<()> {
    fs::rename(&held.pin, to).with_context(|| format!("cannot rename {}", held.pin.display()))
}

/// Where a link is pinned.
fn pin(pins: &Pins, interface: u32, direction: Direction) -> PathBuf {
    let name = format!("{interface}-{}", direction.as_str());
    pins.links().join(name)
}

fn gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENODEV | libc::ENOLINK | libc::ENXIO)
    )
}

fn attach(pins: &Pins, set: &Set, index: u32, name: &str, program: For) -> anyhow::Result<()> {
    set.load(pins, program.plane, program.ethernet)?;
    let fd = set.program(program)?;
    let attached = Link::attach(fd.as_fd(), index, program.direction);
    let link = match attached {
        Ok(link) => link,
        Err(error) if gone(&error) => return Ok(()),
        Err(error) => return Err(refused(error, name, program.direction)),
    };
    let pin = pin(pins, index, program.direction);
    link.pin(&pin)
        .with_context(|| format!("cannot pin {}", pin.display()))
}

/// Why an interface takes no program, and what to do.
fn refused(error: io::Error, name: &str, direction: Direction) -> anyhow::Error {
    let hint = match (error.raw_os_error(), direction) {
        (Some(libc::EBUSY | libc::EEXIST), Direction::In) => {
            " (another XDP program is there: `ip link show` and `bpftool net` say which)"
        }
        (Some(libc::EINVAL), Direction::Out) => {
            " (filters that outlive this process need tcx, of Linux 6.6: \
             nothing is attached in ways that cannot be pinned)"
        }
        (Some(libc::EINVAL), Direction::In) => {
            " (filters that outlive this process need links of XDP, of Linux 5.9: \
             nothing is attached in ways that cannot be pinned)"
        }
        _ => "",
    };
    let what = match direction {
        Direction::In => "XDP",
        Direction::Out => "tcx",
    };
    anyhow::Error::new(error).context(format!("{name}: cannot attach by {what}{hint}"))
}

/// What is to be done so that the interfaces have the programs of a set that
/// they should have; `only`: on these planes.
///
/// # Errors
/// Without rights, and where another's XDP program is in the way.
pub fn changes(
    pins: &Pins,
    set: &Set,
    wanted: &[(&Interface, u8)],
    interfaces: &[Interface],
    only: Option<&[u8]>,
) -> anyhow::Result<Vec<Change>> {
    let programs = set.programs()?;
    let mut here: BTreeMap<(u32, Direction), Held> = BTreeMap::new();
    let mut changes = Vec::new();
    for held in held(pins)? {
        let key = (held.info.interface, held.info.direction);
        let named = held.pin == pin(pins, key.0, key.1);
        match place(&held.info, interfaces) {
            Place::Gone => changes.push(Change::End(held)),
            Place::Away if away(&held) => {}
            Place::Away => changes.push(Change::SetAside(held)),
            Place::Here if !named => changes.push(Change::TakeBack(held)),
            Place::Here => {
                here.insert(key, held);
            }
        }
    }
    if !changes.is_empty() {
        // Names are free then: another look follows.
        return Ok(changes);
    }
    for (interface, plane) in wanted {
        for direction in Direction::BOTH {
            let program = For {
                plane: *plane,
                ethernet: interface.ethernet,
                direction,
            };
            let held = here.remove(&(interface.index, direction));
            if only.is_some_and(|only| !only.contains(plane)) {
                continue;
            }
            match held {
                None => changes.push(Change::Attach {
                    index: interface.index,
                    name: interface.name.clone(),
                    program,
                }),
                Some(held) if programs.get(&held.info.program) != Some(&program) => {
                    changes.push(Change::Replace { held, program });
                }
                Some(_) => {}
            }
        }
    }
    if only.is_none() {
        changes.extend(here.into_values().map(Change::End));
    }
    Ok(changes)
}

/// Whether a link was set aside.
fn away(held: &Held) -> bool {
    let name = held.pin.file_name();
    name.is_some_and(|name| name.to_string_lossy().starts_with(AWAY))
}

/// Makes all changes that there are, and says whether there were some.
///
/// # Errors
/// The first that failed. The others are made.
pub fn settle(pins: &Pins, set: &Set, policy: &Policy) -> anyhow::Result<bool> {
    let mut any = false;
    let mut failed = None;
    // Each look is for names that the one before has freed, and for what
    // happened meanwhile.
    for _ in 0..4 {
        let interfaces = super::interfaces::all()?;
        let wanted = wanted(policy, &interfaces);
        let changes = changes(pins, set, &wanted, &interfaces, None)?;
        if changes.is_empty() || failed.is_some() {
            break;
        }
        any = true;
        for change in changes {
            if let Err(error) = change.make(pins, set) {
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(any), Err)
}

/// Refuses interfaces on which another's XDP program is, before anything is
/// changed.
///
/// # Errors
/// For each such interface.
pub fn refuse_others(pins: &Pins, wanted: &[(&Interface, u8)]) -> anyhow::Result<()> {
    let ours: HashMap<u32, u32> = held(pins)?
        .iter()
        .filter(|held| held.info.direction == Direction::In)
        .map(|held| (held.info.interface, held.info.program))
        .collect();
    for (interface, _) in wanted {
        if let Some(xdp) = interface.xdp
            && ours.get(&interface.index) != Some(&xdp.program)
        {
            bail!(
                "{}: another XDP program is there (number {}; `ip link set dev {} xdp off` \
                 removes one that is no link)",
                interface.name,
                xdp.program,
                interface.name
            );
        }
    }
    Ok(())
}
