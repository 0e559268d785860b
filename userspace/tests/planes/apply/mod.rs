//! Policies that are applied: pinned programs on real interfaces, and whoever
//! applies them killed at any moment.

mod changes;
mod interfaces;
mod killed;
mod memory;
pub mod node;
mod tool;
