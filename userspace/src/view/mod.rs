//! How latency is shown: from snapshots of histograms to frames on a
//! terminal, plain lines, JSON and HdrHistogram's percentile text.
//!
//! Nothing here knows where the numbers come from; [`session::Source`] brings
//! them.

mod draw;
pub mod events;
pub mod explain;
pub mod group;
pub mod hgrm;
mod lines;
mod octaves;
pub mod screen;
pub mod session;
mod table;
#[cfg(test)]
mod tests;
pub mod text;

pub use draw::Stretch;
pub use screen::Screen;
