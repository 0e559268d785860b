//! What this kernel offers: fields, hooks, programs, costs.

mod attach;
pub mod batch;
pub mod btf;
mod cast;
pub mod cgroup2;
pub(crate) mod constants;
pub mod cost;
pub mod facts;
mod fold;
mod hold;
pub mod loader;
pub mod modules;
pub mod object;
pub mod plan;
pub mod returns;
mod sizes;
pub(crate) mod sys;
pub mod trampolines;
