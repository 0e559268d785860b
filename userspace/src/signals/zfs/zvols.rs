//! Volumes, from the accounts of their device numbers to their datasets.

use std::{collections::HashMap, sync::Arc};

use aya::maps::MapError;
use kldtrace_abi::{
    block::Op,
    zfs::OTHER_DEVICE,
    zvol::{Zvol, ZvolKey},
};

use super::{part::Part, words::other_name};
use crate::{
    collect::zfs::{datasets::Name, zvols::Zvols as Names},
    signals::table::OTHER_LABEL,
};

/// Whether volumes get request queues when they come up (since 2.2).
const QUEUED: &str = "/sys/module/zfs/parameters/zvol_use_blk_mq";

/// Labels: dataset, operation.
pub(super) type Labels = (Name, &'static str);

/// Volumes.
pub(super) struct Zvols {
    pub(super) part: Part<ZvolKey, Zvol, Labels>,
    names: Names,
}

impl Zvols {
    pub(super) fn new(series: usize) -> Self {
        Self {
            part: Part::new("zfs_zvols", series, (other_name(), OTHER_LABEL)),
            names: Names::default(),
        }
    }

    /// Sums by label. `all`: their owners are gone, so nothing stays in the
    /// map.
    pub(super) fn read(&mut self, all: bool) -> Result<HashMap<Labels, Box<Zvol>>, MapError> {
        let accounts = self.part.read()?;
        let devices = accounts.keys().map(|key| key.device);
        self.names
            .read(devices.filter(|device| *device != OTHER_DEVICE));
        let names = &self.names;
        Ok(self.part.sum(accounts, |key| {
            if key.device == OTHER_DEVICE {
                return ((other_name(), OTHER_LABEL), false);
            }
            let (name, gone) = names.name(key.device);
            ((name, op_word(key.op)), gone || all)
        }))
    }
}

/// Why volumes are not measured; `None`: they are.
pub(super) fn withheld() -> Option<String> {
    let queued = std::fs::read_to_string(QUEUED).is_ok_and(|text| text.trim() == "1");
    queued.then(|| {
        "zvol_use_blk_mq=1: volumes have request queues, see the signals of block, devices zdN"
            .to_owned()
    })
}

pub(super) fn label_values((name, op): &Labels) -> Vec<Arc<str>> {
    vec![name.pool.clone(), name.dataset.clone(), (*op).into()]
}

fn op_word(op: u32) -> &'static str {
    Op::ALL
        .get(op as usize)
        .map_or(OTHER_LABEL, |op| op.as_str())
}
