//! Rare facts, kept for a while: the newest, in the order in which they came.

use std::collections::VecDeque;

use kldtrace_exporters::model::Event;
use serde::{Deserialize, Serialize};

/// Which events somebody asks for.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Those of one subject; `None`: of all.
    pub subject: Option<String>,
    /// The oldest that came after the event of this number. `None`: the
    /// newest.
    pub after: Option<u64>,
    /// So many at most.
    pub limit: usize,
}

/// What is answered, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Page {
    /// The events.
    pub events: Vec<Event>,
    /// What to ask for `after` next.
    pub next: u64,
    /// Events after `after`, of any subject, that are no longer kept.
    pub forgotten: u64,
}

/// Keeps a bounded number of events.
pub struct Store {
    events: VecDeque<Event>,
    limit: usize,
    /// Number of the newest event, 0 before the first.
    newest: u64,
    /// Number of the newest event that [`Self::take`] has handed out.
    taken: u64,
}

impl Store {
    /// Keeps at most `limit` events.
    pub fn new(limit: usize) -> Self {
        Self {
            events: VecDeque::new(),
            limit: limit.max(1),
            newest: 0,
            taken: 0,
        }
    }

    /// Takes in an event and gives it its number.
    pub fn push(&mut self, mut event: Event) {
        self.newest += 1;
        event.id = self.newest;
        if self.events.len() == self.limit {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Goes on where another store ends: its events come before those that
    /// came here meanwhile, and numbers go on.
    pub fn follow(&mut self, before: Self) {
        let since = std::mem::take(&mut self.events);
        *self = Self {
            limit: self.limit,
            ..before
        };
        while self.events.len() > self.limit {
            self.events.pop_front();
        }
        for event in since {
            self.push(event);
        }
    }

    /// What is asked for. A number beyond the newest is one of a daemon before
    /// this: then everything here came after it.
    pub fn page(&self, query: &Query) -> Page {
        let wanted = |event: &&Event| {
            let subject = query.subject.as_deref();
            subject.is_none_or(|subject| event.subject == subject)
        };
        let Some(after) = query.after else {
            let newest = self.events.iter().rev().filter(wanted).take(query.limit);
            let mut events: Vec<_> = newest.cloned().collect();
            events.reverse();
            return Page {
                events,
                next: self.newest,
                forgotten: 0,
            };
        };
        let after = if after > self.newest { 0 } else { after };
        let mut found = self.since(after).filter(wanted).peekable();
        let mut events = Vec::new();
        while events.len() < query.limit
            && let Some(event) = found.next()
        {
            events.push(event.clone());
        }
        let last = events.last().map_or(after, |event: &Event| event.id);
        Page {
            next: found.peek().map_or(self.newest, |_| last),
            forgotten: self.forgotten(after),
            events,
        }
    }

    /// The events that are kept and came after the one of this number.
    pub fn since(&self, after: u64) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.id > after)
    }

    /// All that are kept, the newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Event> {
        self.events.iter().rev()
    }

    /// How many came after the one of this number and are no longer kept.
    pub fn forgotten(&self, after: u64) -> u64 {
        let oldest = self.events.front().map_or(self.newest + 1, |one| one.id);
        oldest.saturating_sub(after.saturating_add(1))
    }

    /// The events since the last call.
    pub fn take(&mut self) -> Vec<Event> {
        let taken = std::mem::replace(&mut self.taken, self.newest);
        self.since(taken).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(subject: &'static str) -> Event {
        Event {
            id: 0,
            time_ns: 0,
            subject: subject.into(),
            kind: "x".into(),
            labels: Vec::new(),
            fields: Vec::new(),
            message: String::new(),
        }
    }

    fn store(limit: usize, subjects: &[&'static str]) -> Store {
        let mut store = Store::new(limit);
        for subject in subjects {
            store.push(event(subject));
        }
        store
    }

    fn page(
        store: &Store,
        subject: &str,
        after: Option<u64>,
        limit: usize,
    ) -> (Vec<u64>, u64, u64) {
        let page = store.page(&Query {
            subject: (!subject.is_empty()).then(|| subject.to_owned()),
            after,
            limit,
        });
        let ids = page.events.iter().map(|event| event.id);
        (ids.collect(), page.next, page.forgotten)
    }

    #[test]
    fn the_newest_stay_and_the_rest_is_counted() {
        let store = store(3, &["a", "b", "a", "b", "a"]);
        assert_eq!(page(&store, "", None, 9), (vec![3, 4, 5], 5, 0));
        assert_eq!(page(&store, "", None, 2), (vec![4, 5], 5, 0));
        assert_eq!(page(&store, "a", None, 9), (vec![3, 5], 5, 0));
        assert_eq!(page(&store, "", Some(0), 9), (vec![3, 4, 5], 5, 2));
        assert_eq!(page(&store, "", Some(1), 9), (vec![3, 4, 5], 5, 1));
        assert_eq!(page(&store, "", Some(5), 9), (vec![], 5, 0));
    }

    #[test]
    fn pages_follow_one_another_without_a_gap() {
        let store = store(9, &["a", "b", "a", "b", "a", "b"]);
        assert_eq!(page(&store, "a", Some(0), 2), (vec![1, 3], 3, 0));
        // Nothing of the subject is left: go on behind the others too.
        assert_eq!(page(&store, "a", Some(3), 2), (vec![5], 6, 0));
        assert_eq!(page(&store, "a", Some(3), 1), (vec![5], 6, 0));
        assert_eq!(page(&store, "c", Some(0), 2), (vec![], 6, 0));
        assert_eq!(page(&store, "a", Some(0), 0), (vec![], 0, 0));
    }

    #[test]
    fn who_followed_the_daemon_before_gets_everything() {
        let store = store(9, &["a", "a"]);
        assert_eq!(page(&store, "", Some(700), 9), (vec![1, 2], 2, 0));
        assert_eq!(page(&store, "", Some(u64::MAX), 9), (vec![1, 2], 2, 0));
        assert_eq!(page(&Store::new(0), "", Some(1), 9), (vec![], 0, 0));
    }

    #[test]
    fn each_is_taken_once() {
        let mut store = store(2, &["a", "b"]);
        assert_eq!(store.take().len(), 2);
        assert_eq!(store.take().len(), 0);
        store.push(event("c"));
        assert_eq!(store.take()[0].id, 3);
    }

    #[test]
    fn numbers_go_on_after_a_reload() {
        let before = store(9, &["a", "b", "a"]);
        let mut new = store(3, &["n"]);
        new.follow(before);
        assert_eq!(page(&new, "", None, 9), (vec![2, 3, 4], 4, 0));
        assert_eq!(new.events.back().unwrap().subject, "n");
    }
}
