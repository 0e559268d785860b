//! From maps and ring buffer to families: reading, naming, summing.

pub mod cgroups;
pub mod devices;
pub mod families;
pub mod maps;
pub mod own;
pub mod reader;
pub mod slots;
pub mod table;
