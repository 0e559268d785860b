//! Tests that run in guests: `cargo xtask vm`. One module for one scenario.
//! Elsewhere they say that they were skipped, and why.

mod guest;
