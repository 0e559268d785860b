//! Lines that go into the spool together.

use std::time::Duration;

use tokio::time::Instant;

use super::{fields::TEXT, stage::WORDS};
use crate::spool::{MAX_ENTRY, Parcel, Settings};

/// Bytes at which a batch is full.
const FULL: usize = 512 << 10;

/// Most bytes of a batch: with one entry over, and words that name their unit
/// twice.
const MOST: usize = FULL + MAX_ENTRY + WORDS * (2 * TEXT + 256);

// Every spool takes a batch: a quarter of it.
const _: () = assert!((MOST as u64) < Settings::SMALLEST / 4);

/// What was read, and is not in the spool.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Lines, and what is said about those that are left out.
    pub(super) parcel: Parcel,
    /// The lines among them.
    pub(super) lines: u64,
    /// When its first entry was read; `None`: there is none.
    since: Option<Instant>,
}

impl Batch {
    /// An entry was read, and its line added or left out.
    pub(super) fn took(&mut self, added: bool) {
        self.lines += u64::from(added);
        self.since.get_or_insert_with(Instant::now);
    }

    /// Whether nothing was read, not even what is left out.
    pub(super) fn is_empty(&self) -> bool {
        self.since.is_none()
    }

    /// Whether it is to go now.
    pub(super) fn is_full(&self) -> bool {
        self.parcel.bytes() >= FULL
    }

    /// Waits until it is as old as that; for ever while it is empty.
    pub(super) async fn due(&self, age: Duration) {
        match self.since {
            Some(since) => tokio::time::sleep_until(since + age).await,
            None => std::future::pending().await,
        }
    }

    /// Forgets all of it.
    pub(super) fn clear(&mut self) {
        self.parcel.clear(FULL);
        self.lines = 0;
        self.since = None;
    }
}
