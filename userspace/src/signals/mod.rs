//! From maps and ring buffer to families: reading, naming, summing.

pub mod cgroups;
mod clock;
mod collector;
pub mod devices;
pub mod events;
mod exemplars;
pub mod families;
pub mod maps;
pub mod module;
mod node;
pub mod own;
pub mod reader;
pub mod serving;
pub mod slots;
pub mod table;
pub mod wireguard;
mod worker;
pub mod zfs;

use crate::kernel::loader::Options;

/// The collectors of kernel modules. `series` is the limit of label sets for
/// each subject.
fn modules(options: &Options, series: usize) -> Vec<Box<dyn module::Module>> {
    let names = options.names.clone();
    vec![
        Box::new(zfs::Collector::new(series)),
        Box::new(wireguard::Wireguard::new(names, series)),
    ]
}
