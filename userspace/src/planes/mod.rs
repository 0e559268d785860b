//! Planes: what a node lets pass on which of its interfaces.
//!
//! A policy is one TOML file ([`read`]). It is checked ([`check`]) and compiled
//! ([`compile`]) into one image that the kernel's programs judge packets by,
//! with the code of [`kldtrace_abi::plane`].

pub mod attach;
pub mod boot;
pub mod change;
pub mod check;
pub mod compile;
pub mod diff;
pub mod explain;
pub mod guard;
pub mod host;
pub mod install;
pub mod interfaces;
pub mod journal;
pub mod learn;
pub mod link;
pub mod nft;
pub mod numbers;
pub mod open;
pub mod pins;
pub mod policy;
pub mod programs;
pub mod read;
pub mod roots;
pub mod saved;
pub mod state;
pub mod status;
pub mod watch;
