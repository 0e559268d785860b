//! From maps and ring buffer to families: reading, naming, summing.

pub mod accounts;
pub mod cgroups;
mod clock;
mod collector;
pub mod devices;
pub mod digests;
pub mod events;
mod exemplars;
pub mod families;
mod hash;
pub mod maps;
pub mod module;
mod node;
pub mod own;
pub mod places;
pub mod planes;
pub mod pushing;
pub mod reader;
mod rings;
pub mod serving;
pub mod table;
pub mod wireguard;
mod worker;
pub mod zfs;

use std::sync::Arc;

use crate::planes::roots::Roots;

/// What is said of labels.
#[derive(Clone, Debug)]
pub struct Labels {
    /// So many sets of them for each subject at most.
    pub series: usize,
    /// What people call peers and interfaces.
    pub names: Arc<wireguard::names::Names>,
}

impl Labels {
    /// So many at most, and nobody has a name.
    pub fn at_most(series: usize) -> Self {
        Self {
            series,
            names: Arc::default(),
        }
    }
}

/// The collectors of what comes and goes: kernel modules, and planes.
fn modules(labels: &Labels) -> Vec<Box<dyn module::Module>> {
    let names = labels.names.clone();
    vec![
        Box::new(zfs::Collector::new(labels.series)),
        Box::new(wireguard::Wireguard::new(names, labels.series)),
        Box::new(planes::Planes::new(Roots::default(), labels.series)),
    ]
}
