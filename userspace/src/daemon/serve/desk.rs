//! Who is connected to a listener, and what they are at.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{task::AbortHandle, time::Instant};

use crate::signals::serving::{Dropped, Listener};

/// Time for TLS, from the beginning, and for the head of a request, from its
/// first byte. A new connection has as long to send that byte.
const REQUEST: Duration = Duration::from_secs(10);
/// Time for an answer, from the request to its last byte.
const ANSWER: Duration = Duration::from_mins(1);
/// Time between requests. Prometheus asks every minute by default, and closes
/// what it does not use for five.
const IDLE: Duration = Duration::from_secs(330);
/// Refused clients come again: one line in so long is enough.
const SAY: Duration = Duration::from_secs(10);

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// TLS is not there yet.
    Handshake,
    /// No byte of its first request has come.
    New,
    /// The head of a request has begun.
    Head,
    /// A request is being answered.
    Answer,
    /// The answer is written, but not yet out.
    Flush,
    /// It was answered, and no byte of the next request has come.
    Idle,
}

impl Phase {
    /// How long it may take, and what it is when it takes longer.
    fn limit(self) -> (Duration, Dropped) {
        match self {
            Self::Handshake | Self::New | Self::Head => (REQUEST, Dropped::SlowRequest),
            Self::Answer | Self::Flush => (ANSWER, Dropped::SlowReader),
            Self::Idle => (IDLE, Dropped::Idle),
        }
    }

    /// Who has to go first when there is no room; `None`: who is answered
    /// stays. A client that has asked before will ask again.
    fn dispensable(self) -> Option<u8> {
        match self {
            Self::Handshake | Self::New | Self::Head => Some(0),
            Self::Idle => Some(1),
            Self::Answer | Self::Flush => None,
        }
    }
}

struct Place {
    phase: Phase,
    since: Instant,
    task: Option<AbortHandle>,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// By number, so the oldest come first.
    taken: BTreeMap<u64, Place>,
    said: Option<Instant>,
}

struct Shared {
    counts: Arc<Listener>,
    places: Mutex<Places>,
}

impl Shared {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place away from whoever has it.
    fn end(&self, places: &mut Places, number: u64, why: Dropped) {
        if let Some(place) = places.taken.remove(&number) {
            self.counts.count(why);
            if let Some(task) = place.task {
                task.abort();
            }
        }
    }
}

/// The places of one listener.
pub(super) struct Desk(Arc<Shared>);

impl Desk {
    pub fn new(counts: Arc<Listener>) -> Self {
        Self(Arc::new(Shared {
            counts,
            places: Mutex::default(),
        }))
    }

    /// A place for a new connection, if need be that of the one which is idle
    /// for longest. `None`: there is none.
    pub fn take(&self) -> Option<Seat> {
        let mut places = self.0.places();
        if places.taken.len() as u64 >= self.0.counts.limit() {
            let idle = places.taken.iter().filter_map(|(number, place)| {
                Some((place.phase.dispensable()?, place.since, *number))
            });
            let Some((_, _, number)) = idle.min() else {
                self.0.counts.count(Dropped::Full);
                return None;
            };
            self.0.end(&mut places, number, Dropped::Evicted);
        }
        let number = places.next;
        places.next += 1;
        let place = Place {
            phase: Phase::Handshake,
            since: Instant::now(),
            task: None,
        };
        places.taken.insert(number, place);
        self.0.counts.holds(places.taken.len());
        let holder = Holder {
            shared: self.0.clone(),
            number,
        };
        Some(Seat(Arc::new(holder)))
    }

    /// Ends those that have not begun to ask: nobody will answer them.
    pub fn close(&self) {
        let places = self.0.places();
        let waiting =
            |place: &&Place| matches!(place.phase, Phase::Handshake | Phase::New | Phase::Idle);
        for place in places.taken.values().filter(waiting) {
            if let Some(task) = &place.task {
                task.abort();
            }
        }
    }

    /// Ends those that take too long.
    pub fn sweep(&self) {
        let mut places = self.0.places();
        let late: Vec<_> = places
            .taken
            .iter()
            .filter_map(|(number, place)| {
                let (limit, why) = place.phase.limit();
                (place.since.elapsed() > limit).then_some((*number, why))
            })
            .collect();
        for (number, why) in late {
            self.0.end(&mut places, number, why);
        }
        self.0.counts.holds(places.taken.len());
    }
}

/// The place of a connection, until the last of its clones is dropped.
#[derive(Clone)]
pub(super) struct Seat(Arc<Holder>);

struct Holder {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Holder {
    fn drop(&mut self) {
        let mut places = self.shared.places();
        places.taken.remove(&self.number);
        self.shared.counts.holds(places.taken.len());
    }
}

impl Seat {
    /// Changes what the connection is at, if it is at one of these.
    fn goes(&self, from: &[Phase], to: Phase) {
        if let Some(place) = self.0.shared.places().taken.get_mut(&self.0.number)
            && from.contains(&place.phase)
        {
            place.phase = to;
            place.since = Instant::now();
        }
    }

    /// The task to end if the place is needed.
    pub fn can_be_ended(&self, task: AbortHandle) {
        if let Some(place) = self.0.shared.places().taken.get_mut(&self.0.number) {
            place.task = Some(task);
        }
    }

    /// A request is waited for.
    pub fn waits(&self) {
        self.goes(&[Phase::Handshake], Phase::New);
    }

    /// Bytes have come in.
    pub fn read(&self) {
        self.goes(&[Phase::New, Phase::Idle], Phase::Head);
    }

    /// A request is there. It is answered until what is returned is dropped,
    /// and out with the next [`Self::flushed`].
    pub fn answers(&self) -> Answering {
        self.goes(
            &[Phase::New, Phase::Head, Phase::Idle, Phase::Flush],
            Phase::Answer,
        );
        Answering(self.clone())
    }

    /// All bytes are out.
    pub fn flushed(&self) {
        self.goes(&[Phase::Flush], Phase::Idle);
    }

    /// Counts why the connection ends.
    pub fn count(&self, why: Dropped) {
        self.0.shared.counts.count(why);
    }

    /// Whether it is time for another line in the log.
    pub fn may_say(&self) -> bool {
        let mut places = self.0.shared.places();
        let due = places.said.is_none_or(|said| said.elapsed() >= SAY);
        if due {
            places.said = Some(Instant::now());
        }
        due
    }
}

/// An answer that is being written.
pub(super) struct Answering(Seat);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.goes(&[Phase::Answer], Phase::Flush);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::serving::Serving;

    fn desk(limit: u64) -> (Desk, impl Fn(&str) -> u64) {
        let counts = Arc::new(Listener::new("metrics", limit));
        let serving = Serving {
            listeners: vec![counts.clone()],
            ..Serving::default()
        };
        let count = move |what: &str| {
            let state = serving.listeners().remove(0);
            if what == "open" {
                return state.open;
            }
            let mut dropped = state.dropped.into_iter();
            dropped.find(|(why, _)| *why == what).unwrap().1
        };
        (Desk::new(counts), count)
    }

    /// Whether the seat still has its place.
    fn sits(seat: &Seat) -> bool {
        seat.0.shared.places().taken.contains_key(&seat.0.number)
    }

    #[tokio::test(start_paused = true)]
    async fn the_silent_go_before_those_who_asked_and_the_answered_stay() {
        let (desk, count) = desk(4);
        let tick = || tokio::time::advance(Duration::from_millis(1));
        let asked = desk.take().unwrap();
        asked.waits();
        asked.read();
        drop(asked.answers());
        asked.flushed();
        tick().await;
        let answered = desk.take().unwrap();
        answered.waits();
        let answering = answered.answers();
        let mut silent = Vec::new();
        for _ in 0..2 {
            tick().await;
            silent.push(desk.take().unwrap());
        }
        assert_eq!(count("open"), 4);

        let third = desk.take().unwrap();
        assert_eq!((count("open"), count("evicted")), (4, 1));
        assert!(!sits(&silent[0]) && sits(&silent[1]) && sits(&asked));
        silent[1].waits();
        let _second = silent[1].answers();
        third.waits();
        let _third = third.answers();
        // Only the one that was answered before is idle now.
        let fourth = desk.take().unwrap();
        assert!(!sits(&asked) && sits(&answered));
        fourth.waits();
        let _fourth = fourth.answers();
        assert!(desk.take().is_none());
        assert_eq!((count("evicted"), count("full")), (2, 1));
        drop(answering);
        assert!(desk.take().is_none(), "its answer is not out yet");
        answered.flushed();
        assert!(desk.take().is_some());
        drop((answered, silent, third, asked, fourth));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_takes_too_long_goes() {
        let (desk, count) = desk(64);
        let second = Duration::from_secs(1);
        let silent = desk.take().unwrap();
        let slow = desk.take().unwrap();
        slow.waits();
        let kept = desk.take().unwrap();
        kept.waits();
        drop(kept.answers());
        kept.flushed();
        let reader = desk.take().unwrap();
        reader.waits();
        drop(reader.answers());
        tokio::time::advance(9 * second).await;
        // More bytes do not buy more time.
        slow.read();
        tokio::time::advance(2 * second).await;
        desk.sweep();
        assert!(!sits(&silent) && sits(&slow) && sits(&kept) && sits(&reader));
        slow.read();
        tokio::time::advance(9 * second).await;
        desk.sweep();
        assert!(!sits(&slow));
        assert_eq!(count("slow_request"), 2);
        tokio::time::advance(41 * second).await;
        desk.sweep();
        assert!(!sits(&reader) && sits(&kept));
        assert_eq!(count("slow_reader"), 1);
        tokio::time::advance(270 * second).await;
        desk.sweep();
        assert!(!sits(&kept));
        assert_eq!((count("idle"), count("open")), (1, 0));
    }

    #[tokio::test]
    async fn who_leaves_makes_room() {
        let (desk, count) = desk(4);
        for _ in 0..100 {
            drop(desk.take().unwrap());
        }
        assert_eq!((count("open"), count("evicted")), (0, 0));
    }
}
