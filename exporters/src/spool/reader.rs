//! The side that reads: a batch at a time, each acknowledged before the next.

use std::{
    fs::File,
    ops::Range,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;

use super::{
    Error,
    cursor::Place,
    frame::{self, HEADER},
    lock, segment,
    state::State,
};
use crate::push::{Entry, Lane};

/// Entries that a reader has in its hands.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<(Lane, Range<usize>)>,
}

impl Batch {
    /// The entries, in the order in which they were appended.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = Entry<'_>> {
        let entries = self.entries.iter();
        entries.map(|(lane, place)| Entry {
            lane: *lane,
            bytes: &self.bytes[place.clone()],
        })
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// One reader of a spool.
#[derive(Debug)]
pub struct Reader {
    state: Arc<Mutex<State>>,
    changed: watch::Receiver<()>,
    index: usize,
    /// The segment that was read from last.
    file: Option<(u64, File)>,
}

impl Reader {
    pub(super) fn new(
        state: Arc<Mutex<State>>,
        changed: watch::Receiver<()>,
        index: usize,
    ) -> Self {
        Self {
            state,
            changed,
            index,
            file: None,
        }
    }

    /// Waits until there is something to read, and says how many bytes the
    /// segments have beyond this reader's place, other readers' among them.
    /// `None`: the spool's writers are gone, and so is all that was there.
    pub async fn readable(&mut self) -> Option<u64> {
        loop {
            self.changed.borrow_and_update();
            let ahead = self.ahead();
            if ahead > 0 {
                return Some(ahead);
            }
            self.changed.changed().await.ok()?;
        }
    }

    /// Waits until something was appended since the last look; false: the
    /// spool's writers are gone.
    pub async fn changed(&mut self) -> bool {
        self.changed.changed().await.is_ok()
    }

    /// Bytes beyond this reader's place; 0 if nothing waits for it.
    pub fn ahead(&self) -> u64 {
        let state = lock(&self.state);
        let reader = &state.readers[self.index];
        if reader.between(&reader.done.seen, &state.total) == 0 {
            return 0;
        }
        let segments = state.segments.iter();
        let bytes: u64 = segments
            .filter(|segment| segment.number >= reader.done.segment)
            .map(|segment| segment.end)
            .sum();
        bytes.saturating_sub(reader.done.at).max(1)
    }

    /// Reads what comes after the last acknowledged entry, until there are
    /// `bytes` or nothing more. What is damaged is passed over and counted.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn read(&mut self, bytes: usize, batch: &mut Batch) -> Result<(), Error> {
        batch.bytes.clear();
        batch.entries.clear();
        let state = self.state.clone();
        let mut state = lock(&state);
        let mut place = state.readers[self.index].done;
        let mut damaged: u64 = 0;
        let mut body = Vec::new();
        while batch.bytes.len() < bytes {
            let (end, following) = bounds(&state, place.segment);
            let reader = &state.readers[self.index];
            let found = {
                let file = self.file(&state, place.segment)?;
                segment::next(file, place.at, end, &mut body)
            };
            let path = || segment::path(&state.settings.directory, place.segment);
            let found = found.map_err(|error| Error::Disk {
                path: path(),
                error,
            })?;
            match (found, following) {
                (Some(found), _) => {
                    let missing = reader.between(&place.seen, &found.header.before);
                    damaged = damaged.saturating_add(missing);
                    place.at = found.at + (HEADER + found.header.length) as u64;
                    place.seen = found.header.after();
                    for (lane, entry) in frame::entries(&body) {
                        if reader.wants(lane) {
                            let start = batch.bytes.len();
                            batch.bytes.extend_from_slice(&body[entry]);
                            batch.entries.push((lane, start..batch.bytes.len()));
                        }
                    }
                }
                (None, Some(number)) => place = Place::beginning(number, place.seen),
                (None, None) => {
                    // All that was ever written is behind us, so what we have
                    // not seen is not there any more.
                    damaged = damaged.saturating_add(reader.between(&place.seen, &state.total));
                    place.seen = state.total;
                    place.at = end;
                    break;
                }
            }
        }
        let reader = &mut state.readers[self.index];
        reader.damaged = reader.damaged.saturating_add(damaged);
        reader.held = Some(place);
        if batch.is_empty() {
            state.acknowledge(self.index);
        }
        Ok(())
    }

    /// Says that the last batch was passed on: it is never read again.
    pub fn acknowledge(&mut self) {
        lock(&self.state).acknowledge(self.index);
    }

    fn file(&mut self, state: &State, number: u64) -> Result<&File, Error> {
        if self.file.as_ref().is_none_or(|(open, _)| *open != number) {
            let path = segment::path(&state.settings.directory, number);
            let file = File::open(&path).map_err(|error| Error::Disk { path, error })?;
            self.file = Some((number, file));
        }
        let (_, file) = self.file.as_ref().expect("it was just opened");
        Ok(file)
    }
}

/// Where a segment ends, and which follows.
fn bounds(state: &State, number: u64) -> (u64, Option<u64>) {
    let mut segments = state.segments.iter();
    let segment = segments.find(|segment| segment.number == number);
    let following = segments.next().map(|segment| segment.number);
    (segment.map_or(0, |segment| segment.end), following)
}
