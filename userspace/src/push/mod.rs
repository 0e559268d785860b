//! Pushing to Loki and by OTLP: a thread of its own, fed through an outbox.

mod destinations;
mod journal;
#[cfg(test)]
mod names;
mod outbox;
mod thread;

pub use self::{
    destinations::{Destinations, metrics},
    outbox::Outbox,
    thread::{Thread, start},
};
