//! How far one reader is.

use std::{io, path::Path};

use super::{
    Standing,
    cursor::{Cursor, Place},
    frame::{ByLane, LANES},
};
use crate::push::Lane;

/// How far one reader is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) name: &'static str,
    lanes: [bool; LANES],
    cursor: Cursor,
    /// What is acknowledged.
    pub(super) done: Place,
    /// The end of what the reader has in its hands.
    pub(super) held: Option<Place>,
    dropped: u64,
    pub(super) damaged: u64,
}

impl Progress {
    /// A reader as it was left, or at `oldest` if it was never here.
    pub(super) fn open(
        directory: &Path,
        name: &'static str,
        lanes: &[Lane],
        oldest: Place,
    ) -> io::Result<Self> {
        let path = directory.join(format!("{name}.cursor"));
        let (cursor, place) = Cursor::open(&path)?;
        let mut progress = Self {
            name,
            lanes: std::array::from_fn(|lane| lanes.iter().any(|one| *one as usize == lane)),
            cursor,
            done: place.unwrap_or(oldest),
            held: None,
            dropped: 0,
            damaged: 0,
        };
        let done = progress.done;
        if (done.segment, done.at) <= (oldest.segment, oldest.at) {
            progress.dropped = progress.between(&done.seen, &oldest.seen);
            progress.done = oldest;
        }
        Ok(progress)
    }

    pub(super) fn wants(&self, lane: Lane) -> bool {
        self.lanes[lane as usize]
    }

    /// Entries of this reader's lanes between two counts.
    pub(super) fn between(&self, from: &ByLane, to: &ByLane) -> u64 {
        (0..LANES)
            .filter(|lane| self.lanes[*lane])
            .map(|lane| to[lane].saturating_sub(from[lane]))
            .sum()
    }

    /// Segments went: goes on at `oldest`, where this was not beyond.
    pub(super) fn skip_to(&mut self, oldest: Place) {
        let next = self.held.unwrap_or(self.done);
        if next.segment < oldest.segment {
            let went = self.between(&next.seen, &oldest.seen);
            self.dropped = self.dropped.saturating_add(went);
            if self.held.is_some() {
                self.held = Some(oldest);
            }
        }
        if self.done.segment < oldest.segment {
            // What is in the reader's hands and was in those segments is lost
            // only with the process: the next finds so many missing.
            let seen = std::array::from_fn(|lane| {
                let in_hand = next.seen[lane]
                    .min(oldest.seen[lane])
                    .saturating_sub(self.done.seen[lane]);
                oldest.seen[lane] - in_hand
            });
            self.done = Place { seen, ..oldest };
            self.keep();
        }
    }

    /// The reader has passed on what it had in its hands. Whether it is in
    /// another segment now.
    pub(super) fn acknowledge(&mut self) -> bool {
        let Some(held) = self.held.take() else {
            return false;
        };
        let before = std::mem::replace(&mut self.done, held);
        self.keep();
        self.done.segment > before.segment
    }

    /// Keeps on disk what is acknowledged. A disk that does not take it costs
    /// repetitions after a restart, and nothing before.
    fn keep(&mut self) {
        if let Err(error) = self.cursor.keep(&self.done) {
            tracing::warn!(reader = self.name, %error, "the spool's place cannot be kept");
        }
    }

    /// What it has before it and has lost; `total` counts all that there is.
    pub(super) fn standing(&self, total: &ByLane) -> Standing {
        Standing {
            waiting: self.between(&self.done.seen, total),
            dropped: self.dropped,
            damaged: self.damaged,
        }
    }
}
