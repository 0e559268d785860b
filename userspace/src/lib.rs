//! kldtrace: what runs in user space. `main.rs` is the command.

pub mod bundle;
pub mod catalogue;
pub mod cli;
pub mod collect;
pub mod config;
pub mod daemon;
pub mod doctor;
pub mod explain;
pub mod fleet;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod kernel;
pub mod planes;
pub mod push;
pub mod quantile;
pub mod selection;
pub mod signals;
pub mod view;
mod words;
