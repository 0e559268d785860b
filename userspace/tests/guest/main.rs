//! Tests that need real ZFS or real WireGuard. They run in guests: `cargo
//! xtask vm`. One module for one scenario. Elsewhere they say that they were
//! skipped, and why.

#[path = "../live/common.rs"]
#[allow(dead_code, reason = "the live tests need more of it")]
mod common;
#[path = "../live/digested.rs"]
mod digested;
mod machine;
mod paging;
#[path = "../live/prometheus/server.rs"]
#[expect(dead_code, reason = "the live tests ask more of it")]
mod prometheus;
mod shared;
mod wireguard;
mod zfs;
