//! Reading the probes' account maps.

use std::sync::Arc;

use anyhow::Context as _;
use aya::{
    Ebpf, Pod,
    maps::{MapData, MapError, PerCpuArray},
};
use kldtrace_abi::{
    block::{Block, BlockKey, Op},
    histogram::Histogram,
    loss::Loss,
    sched::Sched,
    tcp::{Tcp, TcpKey},
};

use super::{
    accounts::SlotAccounts,
    places::Places,
    table::{OTHER_LABEL, Table},
};

/// Labels of the TCP accounts.
pub type TcpLabels = (Arc<str>, Arc<str>, &'static str);
/// Labels of the block accounts.
pub type BlockLabels = (Arc<str>, &'static str);

/// What can be added up over CPUs and cgroups.
pub trait Sum: Copy + 'static {
    /// Nothing counted.
    const ZERO: Self;
    /// Adds another account.
    fn add(&mut self, other: &Self);
    /// Whether nothing was counted.
    fn is_zero(&self) -> bool;
}

pub(super) fn add_all<const N: usize>(to: &mut [u64; N], from: &[u64; N]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

pub(super) fn add_histograms<const N: usize>(to: &mut [Histogram; N], from: &[Histogram; N]) {
    for (to, from) in to.iter_mut().zip(from) {
        to.add(from);
    }
}

impl Sum for Sched {
    const ZERO: Self = Self {
        runqueue: [Histogram::EMPTY; 2],
        oncpu: Histogram::EMPTY,
        offcpu: [Histogram::EMPTY; 3],
        switches: [0; 3],
        migrations: 0,
    };

    fn add(&mut self, other: &Self) {
        add_histograms(&mut self.runqueue, &other.runqueue);
        self.oncpu.add(&other.oncpu);
        add_histograms(&mut self.offcpu, &other.offcpu);
        add_all(&mut self.switches, &other.switches);
        self.migrations += other.migrations;
    }

    fn is_zero(&self) -> bool {
        let histograms = self.runqueue.iter().chain(&self.offcpu);
        histograms.chain([&self.oncpu]).all(|h| h.count() == 0)
            && self.switches == [0; 3]
            && self.migrations == 0
    }
}

impl Sum for Tcp {
    const ZERO: Self = Self {
        connect: Histogram::EMPTY,
        accept: Histogram::EMPTY,
        srtt: Histogram::EMPTY,
        lifetime: Histogram::EMPTY,
        sent_bytes: 0,
        received_bytes: 0,
        retransmits: [0; 3],
        resets_sent: 0,
        resets_received: 0,
        failures: [0; 5],
        states: [0; 12],
    };

    fn add(&mut self, other: &Self) {
        self.connect.add(&other.connect);
        self.accept.add(&other.accept);
        self.srtt.add(&other.srtt);
        self.lifetime.add(&other.lifetime);
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        add_all(&mut self.retransmits, &other.retransmits);
        self.resets_sent += other.resets_sent;
        self.resets_received += other.resets_received;
        add_all(&mut self.failures, &other.failures);
        add_all(&mut self.states, &other.states);
    }

    fn is_zero(&self) -> bool {
        // Whatever else is counted of a connection, a state, a segment, a
        // retransmission or a reset was there.
        self.states == [0; 12]
            && self.srtt.count() == 0
            && self.retransmits == [0; 3]
            && self.resets_sent + self.resets_received == 0
            && self.accept.count() == 0
    }
}

impl Sum for Block {
    const ZERO: Self = Self {
        queue: Histogram::EMPTY,
        device: Histogram::EMPTY,
        bytes: 0,
        requests: 0,
        errors: 0,
    };

    fn add(&mut self, other: &Self) {
        self.queue.add(&other.queue);
        self.device.add(&other.device);
        self.bytes += other.bytes;
        self.requests += other.requests;
        self.errors += other.errors;
    }

    fn is_zero(&self) -> bool {
        self.requests + self.bytes + self.errors == 0
    }
}

/// Lets aya copy an ABI type out of a map.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Plain<T>(pub(crate) T);

// SAFETY: used with integers and the ABI's `repr(C)` structs of integers only,
// for which every bit pattern is a value; they have no padding.
unsafe impl<T: Copy + 'static> Pod for Plain<T> {}

/// The three account maps and the losses.
pub struct Maps {
    /// By cgroup id.
    pub sched: SlotAccounts<u64, Sched, Arc<str>>,
    /// By cgroup, interface and family.
    pub tcp: SlotAccounts<TcpKey, Tcp, TcpLabels>,
    /// By device and operation.
    pub block: SlotAccounts<BlockKey, Block, BlockLabels>,
    /// Tasks that are remembered, by address.
    pub tasks: Places,
    /// Sockets that are remembered, by address.
    pub sockets: Places,
    /// What the node's probes lost.
    pub losses: Losses,
}

/// What the probes of an object lost.
pub struct Losses(PerCpuArray<MapData, u64>);

impl Losses {
    /// Takes the map out of the loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        let map = ebpf.take_map("LOSSES").context("no map LOSSES")?;
        Ok(Self(map.try_into()?))
    }

    /// Losses in the kernel since attach.
    pub fn read(&self) -> Result<Vec<(Loss, u64)>, MapError> {
        let losses = Loss::ALL.into_iter();
        losses.map(|loss| Ok((loss, self.of(loss)?))).collect()
    }

    /// Losses of one kind since attach.
    pub fn of(&self, loss: Loss) -> Result<u64, MapError> {
        let values = self.0.get(&(loss as u32), 0)?;
        Ok(values.iter().sum())
    }
}

impl Maps {
    /// Takes the maps out of the loaded object. `series` is the limit of label
    /// sets for each of the three.
    ///
    /// # Errors
    /// When one is not there, or the kernel refuses it.
    pub fn take(ebpf: &mut Ebpf, series: usize) -> anyhow::Result<Self> {
        let other: Arc<str> = OTHER_LABEL.into();
        let sched = Table::new(series, other.clone());
        let tcp = Table::new(series, (other.clone(), "".into(), ""));
        let block = Table::new(series, (other, Op::Other.as_str()));
        Ok(Self {
            sched: SlotAccounts::take(ebpf, "SCHED", None, sched)?,
            tcp: SlotAccounts::take(ebpf, "TCP", Some(TcpKey::NOBODY), tcp)?,
            block: SlotAccounts::take(ebpf, "BLOCK", Some(BlockKey::NOBODY), block)?,
            tasks: Places::take(ebpf, "TASKS")?,
            sockets: Places::take(ebpf, "SOCKETS")?,
            losses: Losses::take(ebpf)?,
        })
    }
}
