//! Programs of a node and their peers, under the policy of
//! docs/examples/planes.toml as it is shipped: what it lets in works, and what
//! it does not never arrives.

mod bulk;
mod mtu;
mod net;
mod program;
mod refused;
mod routes;
mod seen;
mod ssh;
mod vrrp;
