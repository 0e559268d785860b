//! Pushing: what a destination is, what its answers mean, and how everything
//! in the spool gets there.

pub(crate) mod answer;
mod aside;
mod auth;
mod backoff;
mod counters;
mod deliver;
pub mod http;
mod told;

use std::{future::Future, time::Duration};

pub use self::{
    aside::Aside,
    auth::Auth,
    backoff::Backoff,
    counters::{Counters, Counts},
    deliver::{Delivery, Settings},
    told::Trouble,
};

/// One entry of the spool, in the order in which they were spooled.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// What the bytes are.
    pub lane: Lane,
    /// A [`Record`](crate::record::Record) or, in [`Lane::Metrics`], a request
    /// of OTLP.
    pub bytes: &'a [u8],
}

/// What an entry is. The numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Lane {
    /// The node's own events.
    Events = 0,
    /// Lines of the journal.
    Journal = 1,
    /// Metrics at one moment, as OTLP's ExportMetricsServiceRequest.
    Metrics = 2,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is taken.
    Taken,
    /// All but `refused` entries are taken; those never will be.
    Partly {
        /// How many are not; 0: the receiver took all and has a warning.
        refused: u64,
        /// The receiver's words.
        why: String,
    },
    /// Nothing is known to be taken; the same again later may be: no
    /// connection, too many requests, a fault or a wrong setting over there.
    Later {
        /// What happened.
        why: String,
        /// The receiver asked to wait so long.
        after: Option<Duration>,
    },
    /// Something in there is bad or too large: of a push of more than one
    /// entry the halves are tried, and one alone is set aside.
    Refused {
        /// The receiver's words.
        why: String,
    },
}

/// A receiver and the form in which it takes things.
pub trait Destination {
    /// Pushes all of `entries` in one request (or, where the receiver has a
    /// place for each of several kinds, one for each). Entries that have
    /// nothing for this receiver count as taken.
    fn send(&mut self, entries: &[Entry<'_>]) -> impl Future<Output = Verdict>;
}
