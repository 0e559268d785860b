//! An image and what outlives it, in this process's own memory: what verdicts
//! are explained and tested by.

use std::collections::HashMap;

use kldtrace_abi::plane::{
    Cell, Cells, Facts, Flow, FlowKey, Memo, Outcome, Tables, judge, leave::leaves, rate::Set,
};

/// What the kernel's maps would hold.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The image.
    pub cells: Vec<Cell>,
    /// Flows that are known.
    pub flows: HashMap<FlowKey, Flow>,
    /// When flows were last seen, by the place of their stamp.
    pub stamps: HashMap<u32, u16>,
    /// What sources have used, by the number of the set.
    pub buckets: HashMap<u32, Set>,
    /// Buckets that gave way to others before their time.
    pub crowded: u64,
    /// What was decided a moment ago, by its place.
    pub memos: HashMap<u32, Memo>,
    /// The time, in nanoseconds.
    pub now: u64,
}

impl Host {
    /// An image without flows, at a time long after boot.
    pub fn new(cells: Vec<Cell>) -> Self {
        Self {
            cells,
            now: 1_000_000_000_000,
            ..Self::default()
        }
    }

    /// What becomes of a packet that arrives on the plane of this number.
    pub fn judge(&mut self, plane: u8, facts: &Facts) -> Outcome {
        judge(self, plane, facts)
    }

    /// Notes a packet that leaves on the plane of this number.
    pub fn leaves(&mut self, plane: u8, facts: &Facts) {
        leaves(self, plane, &facts.turned());
    }
}

impl Cells for Host {
    fn cell(&self, number: u32) -> Option<&Cell> {
        self.cells.get(usize::try_from(number).ok()?)
    }
}

impl Tables for Host {
    fn flow(&mut self, key: &FlowKey) -> Option<&mut Flow> {
        self.flows.get_mut(key)
    }

    fn stamp(&mut self, place: u32) -> Option<&mut u16> {
        Some(self.stamps.entry(place).or_default())
    }

    fn remember(&mut self, key: &FlowKey, flow: Flow) {
        self.flows.insert(*key, flow);
    }

    fn buckets(&mut self, set: u32) -> Option<&mut Set> {
        Some(self.buckets.entry(set).or_default())
    }

    fn crowded(&mut self) {
        self.crowded += 1;
    }

    fn memo(&mut self, place: u32) -> Option<&mut Memo> {
        Some(self.memos.entry(place).or_default())
    }

    fn jiffies(&self) -> u64 {
        // A hundred a second.
        self.now / 10_000_000
    }

    fn now(&self) -> u64 {
        self.now
    }

    fn tick(&self) -> u64 {
        self.now
    }
}
