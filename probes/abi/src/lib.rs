//! Types and pure functions that kldtrace's kernel and user space share.
//!
//! Everything here is `no_std`, has a fixed memory layout and is tested on the
//! host. The probes write these types into maps, user space reads them back.
#![no_std]

pub mod block;
pub mod event;
pub mod histogram;
pub mod loss;
pub mod places;
pub mod plane;
pub mod sched;
pub mod tcp;
pub mod wireguard;
pub mod zfs;
pub mod zfs_report;
pub mod zfs_taskq;
pub mod zvol;

/// What stands in an object file for a call of the kernel's function
/// `bpf_rdonly_cast`: no helper has this number. User space puts the function's
/// own in its place.
pub const CAST_CALL: u32 = 0x6b6c_6463;

/// Key part that stands for everything that found no room in a full map.
pub const OTHER: u64 = u64::MAX;
