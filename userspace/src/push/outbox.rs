//! What is on its way into the spool.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use kldtrace_exporters::{
    model::Event,
    push::Lane,
    record::{Record, Span},
};
use tokio::sync::mpsc;

use crate::{
    catalogue::{self, EventKind},
    signals::{events::Store, pushing::Pushing},
};

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
}

/// Parcels that may wait for the disk; what comes meanwhile waits where it is.
const WAITING: usize = 4;
/// Most bytes of events in a parcel, about.
const FULL: usize = 1 << 20;

/// Takes events to the spool's thread. A disk that stands still must not hold
/// up anything else.
pub struct Outbox {
    parcels: mpsc::Sender<Parcel>,
    pushing: Arc<Pushing>,
    /// The newest event that was handed over.
    last: u64,
}

impl Outbox {
    /// An outbox and the end that the spool's thread has.
    pub(super) fn new(pushing: Arc<Pushing>) -> (Self, mpsc::Receiver<Parcel>) {
        let (parcels, receiver) = mpsc::channel(WAITING);
        let outbox = Self {
            parcels,
            pushing,
            last: 0,
        };
        (outbox, receiver)
    }

    /// For others who have something to push.
    pub fn sender(&self) -> mpsc::Sender<Parcel> {
        self.parcels.clone()
    }

    /// What has come of everything.
    pub fn pushing(&self) -> &Arc<Pushing> {
        &self.pushing
    }

    /// Hands over the events that are new. If there is no room, they are left
    /// for the next time; those that are gone by then are counted.
    pub fn take(&mut self, events: &Store) {
        while let Ok(room) = self.parcels.try_reserve() {
            let missed = events.forgotten(self.last);
            self.pushing.missed.fetch_add(missed, Relaxed);
            let mut parcel = Parcel::default();
            for event in events.since(self.last) {
                self.last = event.id;
                parcel.add(Lane::Events, |out| write(event, out));
                if parcel.bytes.len() >= FULL {
                    break;
                }
            }
            if parcel.entries.is_empty() {
                return;
            }
            room.send(parcel);
        }
    }
}

/// An event's bytes in the spool.
fn write(event: &Event, out: &mut Vec<u8>) {
    let kind = format!("{}.{}", event.subject, event.kind);
    let row = catalogue::told(event);
    let span = row.and_then(|row| span(event, row));
    let mut record = Record::from_event(event, &kind, span);
    if let Some(row) = row {
        record.severity = row.severity;
    }
    record.encode(out);
}

/// An event that is one of a histogram's durations is a span, and its other
/// times are stages.
fn span<'a>(event: &'a Event, row: &EventKind) -> Option<Span<'a>> {
    let (_, duration) = row.exemplar?;
    let times = || {
        event.fields.iter().filter_map(|(name, value)| {
            let seconds = value.as_seconds()?;
            // What is no time, such as a negative one, is damage.
            let time = Duration::try_from_secs_f64(seconds).ok()?;
            Some((&**name, time.as_nanos() as u64))
        })
    };
    let (_, duration_ns) = times().find(|(name, _)| *name == duration)?;
    let stages = times()
        .filter(|(name, ns)| *name != duration && *ns > 0)
        .filter_map(|(name, ns)| Some((name.strip_suffix("_seconds")?, ns)));
    let op = event.labels.iter().find(|(name, _)| name == "op");
    let what = op.map_or(row.kind, |(_, op)| op);
    Some(Span {
        name: format!("{} {what}", event.subject),
        duration_ns,
        stages: stages.collect(),
    })
}
