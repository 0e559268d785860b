//! Policies in the kernel: images, and the programs that judge by them.

use std::{num::NonZeroUsize, ptr::NonNull};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::{
        Array, ArrayOfMaps, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray,
        PerCpuValues,
    },
};
use kldtrace_abi::plane::{
    Action, Cell, Flow, FlowKey, Link, Outcome, Reason, ShortKey,
    count::{Count, counter, counters, rule_counters},
    flow::stamp_of,
    image::CHUNK,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use super::pins::Shared;
use crate::{
    kernel::{
        batch::walk,
        constants::{self, Global},
        loader::UNUSED_RING,
        object::PLANE,
    },
    signals::maps::Plain,
};

/// include/uapi/linux/bpf.h: `BPF_F_MMAPABLE` and `BPF_F_INNER_MAP`, as the
/// template in the programs has them.
const FLAGS: u32 = 1 << 10 | 1 << 12;

/// Bytes of a value of such a map.
pub const VALUE: usize = size_of::<[Cell; CHUNK]>();

/// An image in the kernel.
pub type Image = Array<MapData, Plain<[Cell; CHUNK]>>;

/// Writes an image into a map of its own. No program sees it yet.
///
/// # Errors
/// What the kernel says, most likely that there is no memory.
pub fn write(cells: &[Cell]) -> anyhow::Result<Image> {
    let chunks = cells.len().div_ceil(CHUNK);
    let image = Image::create(u32::try_from(chunks)?, FLAGS).context("no map for a policy")?;
    let bytes = NonZeroUsize::new(size_of_val(cells)).context("an empty image")?;
    // SAFETY: a new mapping, at no address of ours.
    let memory = unsafe {
        mmap(
            None,
            bytes,
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
            MapFlags::MAP_SHARED,
            image.map().fd(),
            0,
        )
    };
    let memory = memory.context("cannot map a policy's image")?;
    // SAFETY: the mapping has as many bytes, the map's values lie in it one
    // behind the other (kernel/bpf/arraymap.c), and nobody else has it.
    unsafe {
        memory
            .cast()
            .copy_from_nonoverlapping(NonNull::from(cells).cast::<Cell>(), cells.len());
        munmap(memory, bytes.get())?;
    }
    Ok(image)
}

/// The programs of one interface, loaded and not attached.
pub struct Programs {
    /// aya's handle.
    pub ebpf: Ebpf,
    policy: ArrayOfMaps<MapData, Image>,
    flows: HashMap<MapData, Plain<ShortKey>, Plain<Flow>>,
    flows_v6: HashMap<MapData, Plain<FlowKey>, Plain<Flow>>,
    stamps: Stamps,
}

/// When flows were last seen: pages of stamps.
type Stamps = Array<MapData, Plain<[u16; STAMPS_EACH]>>;
/// As the programs have them.
const STAMPS_EACH: usize = 2048;

impl Programs {
    /// Loads the programs for an interface of the plane of this number, whose
    /// packets begin with `link`. `rules` is the most that a policy may have;
    /// `tell_all` tells of every packet and not only of drops.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn load(plane: u8, link: Link, rules: u32, tell_all: bool) -> anyhow::Result<Self> {
        Self::load_sharing(plane, link, rules, tell_all, &[])
    }

    /// The same, with maps by their name that are pinned at a path, or will be.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn load_sharing(
        plane: u8,
        link: Link,
        rules: u32,
        tell_all: bool,
        shared: &[Shared],
    ) -> anyhow::Result<Self> {
        let mut loader = EbpfLoader::new();
        for Shared { name, path } in shared {
            loader.map_pin_path(name, path.as_path());
        }
        // Nobody reads diagnostics of programs that outlive who loaded them:
        // losses are counted, and the verifier removes the telling.
        let globals = [
            Global::number("PLANE_NUMBER", plane.into()),
            Global::number("PLANE_BARE", u64::from(link == Link::Bare)),
            Global::number("PLANE_TELL_ALL", tell_all.into()),
            Global::log_level(0),
        ];
        let elf = constants::put_into(PLANE.elf, &globals)?;
        loader.map_max_entries("AYA_LOGS", UNUSED_RING);
        loader.map_max_entries("PLANE_COUNTS", counters(rules));
        let mut ebpf = loader.load(&elf).context("the planes' programs")?;
        let mut take = |name: &str| {
            let map = ebpf.take_map(name);
            map.with_context(|| format!("no map {name} in the planes' programs"))
        };
        Ok(Self {
            policy: take("PLANE_POLICY")?.try_into()?,
            flows: take("PLANE_FLOWS")?.try_into()?,
            flows_v6: take("PLANE_FLOWS_V6")?.try_into()?,
            stamps: take("PLANE_STAMPS")?.try_into()?,
            ebpf,
        })
    }

    /// Replaces the policy: every packet from here on is judged by this image,
    /// and by nothing of the one before.
    ///
    /// # Errors
    /// What the kernel says; then the policy is the one before.
    pub fn swap(&mut self, image: &Image) -> anyhow::Result<()> {
        Ok(self.policy.set(0, image, 0)?)
    }

    /// Makes a flow known, as if a packet of it had left.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remember(&mut self, key: &FlowKey, flow: Flow) -> anyhow::Result<()> {
        let place = key.place() as usize;
        let page = (place / STAMPS_EACH) as u32;
        let Plain(mut stamps) = self.stamps.get(&page, 0)?;
        stamps[place % STAMPS_EACH] = stamp_of(flow.seen);
        self.stamps.set(page, Plain(stamps), 0)?;
        match ShortKey::new(key) {
            Some(short) => self.flows.insert(Plain(short), Plain(flow), 0)?,
            None => self.flows_v6.insert(Plain(*key), Plain(flow), 0)?,
        }
        Ok(())
    }

    /// Takes the counters.
    ///
    /// # Errors
    /// When they were taken before.
    pub fn counts(&mut self) -> anyhow::Result<Counts> {
        let map = self.ebpf.take_map("PLANE_COUNTS");
        Counts::new(map.context("no map PLANE_COUNTS")?)
    }
}

/// What the programs have counted.
pub struct Counts(PerCpuArray<MapData, Plain<Count>>);

impl Counts {
    /// Those in a map.
    ///
    /// # Errors
    /// For a map of another form.
    pub fn new(map: Map) -> anyhow::Result<Self> {
        Ok(Self(map.try_into()?))
    }

    /// Sets counters to 0.
    ///
    /// # Errors
    /// When there are no such counters.
    pub fn clear(&mut self, numbers: std::ops::Range<u32>) -> anyhow::Result<()> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        for number in numbers {
            let zeros = vec![Plain(Count::default()); cpus];
            self.0.set(number, PerCpuValues::try_from(zeros)?, 0)?;
        }
        Ok(())
    }

    /// All of them, over all CPUs, at once.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn all(&self) -> anyhow::Result<Counted> {
        let map = self.0.map();
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
        let entries = map.info()?.max_entries();
        let mut all = Vec::with_capacity(entries as usize);
        walk(map, size_of::<u32>(), cpus, entries, |each| {
            all.push(sum(each));
        })?;
        Ok(Counted(all))
    }

    /// One counter ([`kldtrace_abi::plane::count::counter`]), over all CPUs.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn read(&self, number: u32) -> Result<Count, MapError> {
        Ok(sum(&self.0.get(&number, 0)?))
    }
}

fn sum(each: &[Plain<Count>]) -> Count {
    let mut sum = Count::default();
    for Plain(count) in each {
        sum.packets += count.packets;
        sum.bytes += count.bytes;
    }
    sum
}

/// All counters as they were a moment ago.
pub struct Counted(Vec<Count>);

impl Counted {
    /// What a plane has counted itself; what its rules have is theirs.
    ///
    /// # Errors
    /// When there is no such counter.
    pub fn plane(&self, number: u8, reason: Reason, action: Action) -> anyhow::Result<Count> {
        let outcome = Outcome {
            action,
            reason,
            ..Outcome::default()
        };
        let at = counter(number, &outcome) as usize;
        let count = self.0.get(at).copied();
        count.with_context(|| format!("no counter of plane {number}"))
    }

    /// What a rule has counted by its place: passed, dropped, would be dropped,
    /// over its rate.
    ///
    /// # Errors
    /// When there is no such place.
    pub fn rule(&self, place: u32) -> anyhow::Result<[Count; 4]> {
        let range = rule_counters(place);
        let counts = self.0.get(range.start as usize..range.end as usize);
        let counts = counts.and_then(|counts| counts.try_into().ok());
        counts.with_context(|| format!("no counters of rule {place}"))
    }
}
