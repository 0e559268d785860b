//! What the planes' filters know of a packet. The same code runs in the
//! kernel and in the host's tests.

mod facts;
mod parse;
mod transport;

pub use facts::{Facts, Family, Fragment, Malformed};
pub use parse::{Link, Packet, parse};
