//! Events in the log: each kind up to a rate, and how many were left out.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use kldtrace_exporters::model::Event;

use crate::{signals::events::Store, view::text::harmless};

/// Lines of one kind that may come at once, and how long it takes until one
/// more may. What is left out is in `kldtrace events` all the same.
const BURST: u32 = 10;
const EVERY: Duration = Duration::from_secs(1);

/// What has been told so far.
#[derive(Default)]
pub(super) struct Told {
    last: u64,
    kinds: BTreeMap<Kind, Allowance>,
}

/// Subject and kind. They come from the code, so they are few.
type Kind = (Cow<'static, str>, Cow<'static, str>);

impl Told {
    /// Tells of the events that have come since the last call.
    pub(super) fn tell(&mut self, events: &Store, now: Instant) {
        let forgotten = events.forgotten(self.last);
        if forgotten > 0 {
            tracing::warn!(target: "event", forgotten, "events came too fast to be kept or told");
        }
        for event in events.since(self.last) {
            self.last = event.id;
            let kind = (event.subject.clone(), event.kind.clone());
            let allowance = self
                .kinds
                .entry(kind)
                .or_insert_with(|| Allowance::full(now));
            if allowance.take(now) {
                write(event, std::mem::take(&mut allowance.suppressed));
            } else {
                allowance.suppressed += 1;
            }
        }
        // The last of a storm must not wait for the next to be counted.
        for ((subject, kind), allowance) in &mut self.kinds {
            if allowance.suppressed > 0 && allowance.take(now) {
                let suppressed = std::mem::take(&mut allowance.suppressed);
                tracing::info!(target: "event", %subject, %kind, suppressed, "events not logged");
            }
        }
    }
}

fn write(event: &Event, suppressed: u64) {
    let mut labels = String::new();
    for (name, value) in &event.labels {
        let space = if labels.is_empty() { "" } else { " " };
        let _ = write!(labels, "{space}{name}={}", harmless(value));
    }
    let (id, subject, kind) = (event.id, &event.subject, &event.kind);
    let message = harmless(&event.message);
    if suppressed == 0 {
        tracing::info!(target: "event", id, %subject, %kind, labels, "{message}");
    } else {
        tracing::info!(target: "event", id, %subject, %kind, labels, suppressed, "{message}");
    }
}

/// A token bucket.
struct Allowance {
    left: u32,
    since: Instant,
    suppressed: u64,
}

impl Allowance {
    fn full(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            suppressed: 0,
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.saturating_duration_since(self.since) >= EVERY {
            self.left += 1;
            self.since += EVERY;
        }
        if self.left == BURST {
            self.since = now;
        }
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_gets_its_burst_and_then_one_a_second() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let storm = |allowance: &mut Allowance, at| (0..100).filter(|_| allowance.take(at)).count();
        assert_eq!(storm(&mut allowance, start), 10);
        assert_eq!(storm(&mut allowance, start + EVERY / 2), 0);
        assert_eq!(storm(&mut allowance, start + EVERY), 1);
        assert_eq!(storm(&mut allowance, start + 3 * EVERY + EVERY / 2), 2);
        assert_eq!(storm(&mut allowance, start + 1000 * EVERY), 10);
    }

    #[test]
    fn what_is_left_out_is_counted_by_kind() {
        let event = |kind: &'static str| Event {
            id: 0,
            time_ns: 0,
            subject: "zfs".into(),
            kind: kind.into(),
            labels: vec![("dataset".into(), "a\x1b[31m".into())],
            fields: Vec::new(),
            message: "x".to_owned(),
        };
        let mut store = Store::new(1000);
        for _ in 0..25 {
            store.push(event("slow_operation"));
        }
        store.push(event("pool_suspended"));
        let mut told = Told::default();
        let start = Instant::now();
        told.tell(&store, start);
        let suppressed = |told: &Told| {
            let kinds = told.kinds.iter();
            kinds
                .map(|((_, kind), one)| (kind.to_string(), one.suppressed))
                .collect::<Vec<_>>()
        };
        let of = |suppressed| {
            vec![
                ("pool_suspended".to_owned(), 0),
                ("slow_operation".to_owned(), suppressed),
            ]
        };
        assert_eq!(suppressed(&told), of(15));
        // Nothing is told twice, and the rest is said when there is room.
        told.tell(&store, start + EVERY);
        assert_eq!(suppressed(&told), of(0));
    }
}
