//! Entries on their way into the spool.

use std::ops::Range;

use crate::push::Lane;

/// Entries for the spool, in one piece of memory.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    entries: Vec<(Lane, Range<usize>)>,
}

impl Parcel {
    /// Adds what `write` appends, as one entry.
    pub fn add(&mut self, lane: Lane, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.entries.push((lane, start..self.bytes.len()));
    }

    /// The entries, in order.
    pub fn entries(&self) -> Vec<(Lane, &[u8])> {
        let entries = self.entries.iter();
        entries
            .map(|(lane, place)| (*lane, &self.bytes[place.clone()]))
            .collect()
    }

    /// Bytes of all entries.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all entries out, and keeps the memory for up to `bytes` of others.
    pub fn clear(&mut self, bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(bytes);
        self.entries.clear();
    }
}
