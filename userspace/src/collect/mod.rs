//! State that is read, not traced.

pub mod listen;
pub mod wireguard;
pub mod zfs;
