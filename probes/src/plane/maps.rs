//! The maps that a verdict is made from.

use aya_ebpf::{
    bindings::{BPF_F_INNER_MAP, BPF_F_MMAPABLE},
    btf_maps::{Array, ArrayOfMaps, LruHashMap, PerCpuArray, RingBuf},
    helpers::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_map_lookup_elem},
    macros::btf_map,
};
use kldtrace_abi::{
    loss::Loss,
    plane::{
        Address, Cell, Cells, Flow, FlowKey, Leaf, ShortKey, Tables, address,
        count::{Count, Told},
        flow::STAMPS,
        image::{CHUNK, Header},
        kind,
        memo::{MEMOS, Memo},
        rate::{SETS, Set},
        table::{self, Query},
    },
};

use crate::{accounts::lose, kernel::now};

/// A part of an image.
pub type Chunk = [Cell; CHUNK];

/// An image: of any number of parts, written by user space through a mapping
/// before any program sees it, and never by a program.
pub type Image = Array<Chunk, 1, { (BPF_F_INNER_MAP | BPF_F_MMAPABLE) as usize }>;

/// The policy: one entry, whose update replaces all of it.
#[btf_map]
pub static PLANE_POLICY: ArrayOfMaps<Image, 1> = ArrayOfMaps::new();

/// Flows of IPv4 that are known.
#[btf_map]
static PLANE_FLOWS: LruHashMap<ShortKey, Flow, 131_072> = LruHashMap::new();

/// Flows of IPv6 that are known.
#[btf_map]
static PLANE_FLOWS_V6: LruHashMap<FlowKey, Flow, 131_072> = LruHashMap::new();

/// Stamps in one value of the map.
const STAMPS_EACH: usize = 2048;

/// When flows were last seen, by a hash of their key: 128 KiB.
#[btf_map]
static PLANE_STAMPS: Array<[u16; STAMPS_EACH], { STAMPS as usize / STAMPS_EACH }> = Array::new();

/// Sets of buckets in one value of the map: a page.
const SETS_EACH: usize = 64;

/// What sources have used of rates: 2 MiB. What can be mapped begins with a page,
/// so each set is one line of the cache.
#[btf_map]
static PLANE_BUCKETS: Array<
    [Set; SETS_EACH],
    { SETS as usize / SETS_EACH },
    { BPF_F_MMAPABLE as usize },
> = Array::new();

/// Entries in one value of the memo: an index of values is short enough to
/// stay in the CPU's own cache, and a value is a page.
const MEMOS_EACH: usize = 64;

/// What was decided a moment ago, by each CPU for itself: 256 KiB on each.
#[btf_map]
static PLANE_MEMO: PerCpuArray<[Memo; MEMOS_EACH], { MEMOS as usize / MEMOS_EACH }> =
    PerCpuArray::new();

/// Packets and bytes ([`kldtrace_abi::plane::count`]); user space says how
/// many rules there may be.
#[btf_map]
pub static PLANE_COUNTS: PerCpuArray<Count, 1> = PerCpuArray::new();

/// Packets that are told of.
#[btf_map]
pub static PLANE_TOLD: RingBuf<Told, 262_144> = RingBuf::new();

/// A map by numbers.
pub trait Numbered {
    /// Its values.
    type Value;
}

impl<T, const ENTRIES: usize, const FLAGS: usize> Numbered for Array<T, ENTRIES, FLAGS> {
    type Value = T;
}

impl<T, const ENTRIES: usize, const FLAGS: usize> Numbered for PerCpuArray<T, ENTRIES, FLAGS> {
    type Value = T;
}

/// The value of a number, as `get_ptr_mut`, but for how the number lies on the
/// stack: in all of a word of 8 bytes, of which the kernel reads the lower half.
/// Of a word that was written in part the verifier believes that the rest is
/// still needed, and looks at all that follows once more for each way that has
/// not written it.
#[inline(always)]
pub fn value<M: Numbered>(map: &M, number: u32) -> Option<*mut M::Value> {
    let number = u64::from(number);
    // SAFETY: map and key are what the helper takes; both live until it returns.
    let value = unsafe {
        bpf_map_lookup_elem(
            core::ptr::from_ref(map).cast_mut().cast(),
            core::ptr::from_ref(&number).cast(),
        )
    };
    (!value.is_null()).then_some(value.cast())
}

/// The policy as a packet sees it.
#[derive(Clone, Copy)]
struct Policy {
    /// All of it.
    image: &'static Image,
    /// Its first part.
    first: &'static Chunk,
}

/// The maps of the kernel.
pub struct Maps<'a> {
    /// The policy.
    policy: Policy,
    /// Where something that was found is put.
    found: &'a mut u64,
}

impl<'a> Maps<'a> {
    /// With a policy, and a place in a map for what is found.
    #[inline(always)]
    pub fn new(image: &'static Image, first: &'static Chunk, found: &'a mut u64) -> Self {
        let policy = Policy { image, first };
        Self { policy, found }
    }
}

impl Cells for Policy {
    #[inline(always)]
    fn cell(&self, number: u32) -> Option<&Cell> {
        let place = number as usize % CHUNK;
        if number < CHUNK as u32 {
            return Some(&self.first[place]);
        }
        let chunk = value(self.image, number / CHUNK as u32)?;
        // SAFETY: a value of the map, which lives as long as the image.
        Some(unsafe { &(*chunk)[place] })
    }
}

impl Cells for Maps<'_> {
    #[inline(always)]
    fn cell(&self, number: u32) -> Option<&Cell> {
        self.policy.cell(number)
    }
}

impl Tables for Maps<'_> {
    #[inline(always)]
    fn flow(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        let flow = match ShortKey::new(key) {
            Some(short) => PLANE_FLOWS.get_ptr_mut(short),
            None => PLANE_FLOWS_V6.get_ptr_mut(key),
        }?;
        // SAFETY: memory of the map, which all CPUs write in words. An entry
        // that is replaced meanwhile is another flow, whose time is off by
        // less than a tick.
        Some(unsafe { &mut *flow })
    }

    #[inline(always)]
    fn stamp(&mut self, place: u32) -> Option<&mut u16> {
        let each = STAMPS_EACH as u32;
        let stamps = value(&PLANE_STAMPS, place / each)?;
        // SAFETY: memory of the map, which all CPUs write in words.
        let stamps = unsafe { &mut *stamps };
        Some(&mut stamps[(place % each) as usize])
    }

    #[inline(always)]
    fn remember(&mut self, key: &FlowKey, flow: Flow) {
        // A table that is full forgets the flow that was used longest ago; an
        // insertion fails only where other CPUs have all that could be
        // forgotten, and the next packet tries again.
        let kept = match ShortKey::new(key) {
            Some(short) => PLANE_FLOWS.insert(short, flow, 0),
            None => PLANE_FLOWS_V6.insert(key, flow, 0),
        };
        if kept.is_err() {
            lose(Loss::PlaneFlow);
        }
    }

    #[inline(always)]
    fn buckets(&mut self, set: u32) -> Option<&mut Set> {
        let each = SETS_EACH as u32;
        let sets = value(&PLANE_BUCKETS, set / each)?;
        // SAFETY: memory of the map, which all CPUs write in words.
        let sets = unsafe { &mut *sets };
        Some(&mut sets[(set % each) as usize])
    }

    #[inline(always)]
    fn crowded(&mut self) {
        lose(Loss::PlaneRate);
    }

    #[inline(always)]
    fn memo(&mut self, place: u32) -> Option<&mut Memo> {
        let each = MEMOS_EACH as u32;
        let memos = value(&PLANE_MEMO, place / each)?;
        // SAFETY: this CPU's own, and one program at a time has it: those of
        // packets that arrive, alone.
        let memos = unsafe { &mut *memos };
        Some(&mut memos[(place % each) as usize])
    }

    #[inline(always)]
    fn jiffies(&self) -> u64 {
        jiffies()
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        now()
    }

    #[inline(always)]
    fn tick(&self) -> u64 {
        tick()
    }

    #[inline(always)]
    fn leaf(&mut self, _: &Header, root: u32, address: &Address) -> Option<Leaf> {
        leaf(
            self.policy.image,
            self.policy.first,
            root,
            address,
            self.found,
        );
        (*self.found != NONE).then_some(Leaf(*self.found as u32))
    }

    #[inline(always)]
    fn kind(&mut self, group: u32, address: u64) -> u64 {
        let Policy { image, first } = self.policy;
        kind(image, first, group, address, self.found);
        *self.found
    }

    #[inline(always)]
    fn first(&mut self, _: &Header, query: &Query) -> Option<u32> {
        first(self.policy.image, self.policy.first, query, self.found);
        (*self.found != NONE).then_some(*self.found as u32)
    }
}

/// Nothing, where a number is 32 bits long.
const NONE: u64 = u64::MAX;

// What is found lies in a map's memory: in a register the verifier would keep
// apart all ways that lead to it, and look at what follows for each.

#[inline(never)]
fn leaf(
    image: &'static Image,
    first: &'static Chunk,
    root: u32,
    address: &Address,
    found: &mut u64,
) {
    let policy = Policy { image, first };
    let leaf = address::find(&policy, first[0].at(0), root, *address);
    *found = leaf.map_or(NONE, |leaf| leaf.0.into());
}

#[inline(never)]
fn kind(image: &'static Image, first: &'static Chunk, group: u32, address: u64, found: &mut u64) {
    let policy = Policy { image, first };
    *found = kind::unusual(&policy, group, address);
}

#[inline(never)]
fn first(image: &'static Image, first: &'static Chunk, query: &Query, found: &mut u64) {
    let policy = Policy { image, first };
    let rule = table::first(&policy, first[0].at(0), query);
    *found = rule.map_or(NONE, u64::from);
}

/// Now as of the last tick, by `CLOCK_MONOTONIC`, in nanoseconds.
#[inline(always)]
pub fn tick() -> u64 {
    // SAFETY: the helper only reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// Ticks of the kernel's clock.
#[inline(always)]
pub fn jiffies() -> u64 {
    // SAFETY: the helper only reads a clock; the verifier makes it a load.
    unsafe { bpf_jiffies64() }
}
