//! What this kernel offers: fields, hooks, programs, costs.

pub mod btf;
pub mod cost;
pub mod facts;
pub mod loader;
pub mod object;
pub mod plan;
