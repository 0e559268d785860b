//! Records in streams: their labels, their order, and the time they get.

use std::{cmp::Reverse, collections::HashMap};

use crate::record::Record;

/// Loki takes an entry up to an hour behind the newest of its stream (half of
/// `max_chunk_age`); half of that leaves room for what others send.
const BEHIND_NS: u64 = 30 * 60 * 1_000_000_000;
/// Streams whose newest time is remembered.
const REMEMBERED: usize = 4096;

/// What belongs together.
#[derive(Debug)]
pub(super) struct Stream<'a> {
    /// Sorted by name; those without a value are left out.
    pub(super) labels: Vec<(&'static str, &'a str)>,
    /// In the order of their times.
    pub(super) entries: Vec<Placed>,
}

/// A record and the time that it gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) record: usize,
    /// In nanoseconds since 1970. Differs from the record's where that is too
    /// far behind.
    pub(super) time_ns: u64,
}

impl Stream<'_> {
    fn key(&self) -> String {
        let mut key = String::new();
        for (name, value) in &self.labels {
            key.extend([name, "\0", *value, "\0"]);
        }
        key
    }

    fn newest(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.time_ns)
    }
}

/// The newest time that was taken of each stream.
#[derive(Debug, Default)]
pub(super) struct Newest {
    streams: HashMap<String, Seen>,
    pushes: u64,
}

#[derive(Debug)]
struct Seen {
    time_ns: u64,
    push: u64,
}

impl Newest {
    /// Remembers what Loki has taken.
    pub(super) fn taken(&mut self, streams: &[Stream<'_>]) {
        self.pushes += 1;
        let push = self.pushes;
        for stream in streams {
            let seen = self.streams.entry(stream.key());
            let seen = seen.or_insert(Seen { time_ns: 0, push });
            seen.time_ns = seen.time_ns.max(stream.newest());
            seen.push = push;
        }
        if self.streams.len() > REMEMBERED {
            let mut pushes: Vec<_> = self.streams.values().map(|seen| seen.push).collect();
            pushes.sort_unstable_by_key(|push| Reverse(*push));
            // With room for some more, or each push would come here.
            let oldest = pushes[REMEMBERED / 2];
            self.streams.retain(|_, seen| seen.push > oldest);
        }
    }
}

/// Groups records. The order of streams is that in which they first occur.
pub(super) fn group<'a>(
    records: &'a [Record<'_>],
    node: &'a str,
    newest: &Newest,
) -> Vec<Stream<'a>> {
    let mut places = HashMap::new();
    let mut streams: Vec<Stream<'_>> = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let place = *places
            .entry((record.kind, record.plane, record.unit))
            .or_insert_with(|| {
                let mut labels = vec![
                    ("kind", record.kind),
                    ("node", node),
                    ("plane", record.plane),
                    ("unit", record.unit),
                ];
                labels.retain(|(_, value)| !value.is_empty());
                streams.push(Stream {
                    labels,
                    entries: Vec::new(),
                });
                streams.len() - 1
            });
        streams[place].entries.push(Placed {
            record: index,
            time_ns: record.time_ns,
        });
    }
    for stream in &mut streams {
        let seen = newest.streams.get(&stream.key());
        if let Some(mut newest) = seen.map(|seen| seen.time_ns) {
            let first = newest.saturating_sub(BEHIND_NS);
            for entry in &mut stream.entries {
                if entry.time_ns < first {
                    // A time of its own for each: of equal lines at equal
                    // times, Loki keeps one.
                    newest = newest.saturating_add(1);
                    entry.time_ns = newest;
                }
            }
        }
        stream.entries.sort_by_key(|entry| entry.time_ns);
    }
    streams
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn record(kind: &'static str, unit: &'static str, time_ns: u64) -> Record<'static> {
        Record {
            time_ns,
            kind,
            unit,
            ..Record::default()
        }
    }

    fn placed(stream: &Stream<'_>) -> Vec<(usize, u64)> {
        let entries = stream.entries.iter();
        entries.map(|entry| (entry.record, entry.time_ns)).collect()
    }

    #[test]
    fn each_set_of_labels_has_its_records_in_order() {
        let records = [
            record("b", "", 5),
            record("a", "x", 9),
            record("b", "", 3),
            record("b", "", 5),
        ];
        let streams = group(&records, "n", &Newest::default());
        assert_eq!(streams[0].labels, [("kind", "b"), ("node", "n")]);
        assert_eq!(placed(&streams[0]), [(2, 3), (0, 5), (3, 5)]);
        let labels = [("kind", "a"), ("node", "n"), ("unit", "x")];
        assert_eq!(streams[1].labels, labels);
        assert_eq!(placed(&streams[1]), [(1, 9)]);
    }

    #[test]
    fn what_is_far_behind_what_was_taken_gets_a_time_of_its_own() {
        let mut newest = Newest::default();
        // A backlog may span hours: nothing of it was taken before.
        let first = [record("a", "", HOUR), record("a", "", 10 * HOUR)];
        let streams = group(&first, "n", &newest);
        assert_eq!(placed(&streams[0]), [(0, HOUR), (1, 10 * HOUR)]);
        newest.taken(&streams);

        let edge = 10 * HOUR - HOUR / 2;
        let after = [
            record("a", "", 9 * HOUR),
            record("a", "", 9 * HOUR),
            record("a", "", edge),
            record("a", "other", 9 * HOUR),
        ];
        let again = group(&after, "n", &newest);
        let there = 10 * HOUR;
        assert_eq!(
            placed(&again[0]),
            [(2, edge), (0, there + 1), (1, there + 2)]
        );
        assert_eq!(placed(&again[1]), [(3, 9 * HOUR)]);
        // Not taken: the same again.
        assert_eq!(placed(&group(&after, "n", &newest)[0]), placed(&again[0]));
    }

    #[test]
    fn as_many_streams_are_remembered_as_there_is_room_for() {
        let units: Vec<String> = (0..3 * REMEMBERED).map(|unit| unit.to_string()).collect();
        let mut newest = Newest::default();
        for unit in &units {
            let records = [Record {
                unit,
                time_ns: 10 * HOUR,
                ..Record::default()
            }];
            newest.taken(&group(&records, "n", &newest));
            assert!(newest.streams.len() <= REMEMBERED);
        }
        let late = |unit: &String| {
            let records = [Record {
                unit,
                time_ns: HOUR,
                ..Record::default()
            }];
            group(&records, "n", &newest)[0].newest()
        };
        assert_eq!(late(&units[0]), HOUR);
        assert_eq!(late(&units[units.len() - 1]), 10 * HOUR + 1);
    }
}
