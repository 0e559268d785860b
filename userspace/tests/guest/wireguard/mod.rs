//! WireGuard between two network namespaces: what happens to it is known, and
//! must be found in the numbers.

mod bytes;
mod flood;
mod injected;
mod minutes;
mod named;
pub mod net;
mod planes;
mod probes;
mod refused;
mod removal;
mod roundtrip;
mod wire;
