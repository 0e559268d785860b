//! What is on its way into the spool.

use std::{sync::Arc, time::Duration};

use kldtrace_exporters::{
    model::Event,
    push::Lane,
    record::{Record, Span},
    spool::Parcel,
};
use tokio::sync::mpsc;

use crate::{
    catalogue::{self, EventKind},
    signals::{events::Store, pushing::Pushing},
};

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
        if self.parcels.is_closed() {
            self.miss_all(events);
        }
        while let Ok(room) = self.parcels.try_reserve() {
            self.pushing.miss(events.forgotten(self.last));
            let mut parcel = Parcel::default();
            for event in events.since(self.last) {
                self.last = event.id;
                parcel.add(Lane::Events, |out| write(event, out));
                if parcel.bytes() >= FULL {
                    break;
                }
            }
            if parcel.is_empty() {
                return;
            }
            room.send(parcel);
        }
    }

    /// The spool's thread is gone, which only a fault of ours can do: what
    /// comes is not pushed any more, and counted.
    fn miss_all(&mut self, events: &Store) {
        let newest = events.since(self.last).last().map(|event| event.id);
        if let Some(newest) = newest {
            tracing::error!("events are not pushed any more, by a fault of kldtrace: restart it");
            self.pushing.miss(newest - self.last);
            self.last = newest;
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

#[cfg(test)]
mod tests {
    use kldtrace_exporters::{
        model::Field,
        record::{self, Severity},
        spool::{Settings, Spool},
    };

    use super::*;

    fn slow() -> Event {
        let label = |name: &'static str, value: &str| (name.into(), value.into());
        let time = |name: &'static str, seconds| (name.into(), Field::Float(seconds));
        Event {
            id: 0,
            time_ns: 99,
            subject: "zfs".into(),
            kind: "slow_operation".into(),
            labels: vec![
                label("pool", "tank"),
                label("dataset", "tank/a"),
                label("op", "fsync"),
                label("sync", "sync"),
                label("unit", "a.service"),
            ],
            fields: vec![
                time("duration_seconds", 0.041),
                time("zil_commit_seconds", 0.038),
                time("arc_miss_seconds", 0.0),
                time("cpu_seconds", 0.003),
                ("bytes".into(), Field::Integer(7)),
            ],
            message: "fsync took 41 ms".to_owned(),
        }
    }

    fn outbox(folder: &tempfile::TempDir) -> (Outbox, mpsc::Receiver<Parcel>) {
        let settings = Settings {
            directory: folder.path().to_owned(),
            bytes: Settings::SMALLEST,
            sync: None,
        };
        Outbox::new(Arc::new(Pushing {
            spool: Spool::open(settings, &[]).unwrap().0,
            limit: 0,
            destinations: Vec::new(),
            missed: 0.into(),
            journal: None,
        }))
    }

    #[test]
    fn a_slow_operation_is_a_span_of_its_stages() {
        let mut bytes = Vec::new();
        write(&slow(), &mut bytes);
        let record = record::decode(&bytes).unwrap();
        assert_eq!(record.kind, "zfs.slow_operation");
        assert_eq!(record.severity, Severity::Warn);
        let span = record.span.unwrap();
        assert_eq!(span.name, "zfs fsync");
        assert_eq!(span.duration_ns, 41_000_000);
        let stages = [("zil_commit", 38_000_000), ("cpu", 3_000_000)];
        assert_eq!(span.stages, stages);
        let mut odd = slow();
        odd.fields[1].1 = Field::Float(-1.0);
        odd.kind = "unheard_of".into();
        bytes.clear();
        write(&odd, &mut bytes);
        assert!(record::decode(&bytes).unwrap().span.is_none());
    }

    #[test]
    fn events_wait_for_room_and_those_that_are_gone_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (mut outbox, mut parcels) = outbox(&folder);
        let mut events = Store::new(5);
        let missed = |outbox: &Outbox| outbox.pushing.state().missed;
        for _ in 0..WAITING {
            events.push(slow());
            outbox.take(&events);
        }
        for _ in 0..8 {
            events.push(slow());
            outbox.take(&events);
        }
        assert_eq!(missed(&outbox), 0);
        let mut ids = Vec::new();
        let mut receive = |outbox: &mut Outbox| {
            while let Ok(parcel) = parcels.try_recv() {
                for (_, bytes) in parcel.entries() {
                    let (name, id) = record::decode(bytes).unwrap().attributes[0];
                    assert_eq!(name, "event_id");
                    ids.push(format!("{id:?}"));
                }
                outbox.take(&events);
            }
        };
        receive(&mut outbox);
        // 12 events, of which the last 5 were kept, and 4 were handed over.
        assert_eq!(missed(&outbox), 3);
        let expected = (1..=4).chain(8..=12).map(|id| format!("Integer({id})"));
        assert_eq!(ids, expected.collect::<Vec<_>>());
    }

    #[test]
    fn what_nobody_takes_any_more_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (mut outbox, parcels) = outbox(&folder);
        let mut events = Store::new(5);
        drop(parcels);
        for _ in 0..3 {
            events.push(slow());
        }
        outbox.take(&events);
        outbox.take(&events);
        assert_eq!(outbox.pushing.state().missed, 3);
    }
}
