//! What is told of troubles: often enough, and not more.

use std::time::{Duration, Instant};

/// How often a trouble that goes on is told.
const REMIND: Duration = Duration::from_mins(10);

/// Tells of something once, and then now and then how much of it there was
/// since.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: Option<Instant>,
    untold: u64,
}

impl Told {
    /// Takes in so many more: all that are not told yet, if it is time to.
    pub(super) fn more(&mut self, number: u64, now: Instant) -> Option<u64> {
        self.untold += number;
        let due = self
            .last
            .is_none_or(|last| now.duration_since(last) >= REMIND);
        due.then(|| {
            self.last = Some(now);
            std::mem::take(&mut self.untold)
        })
    }
}

/// Something that goes on to fail.
#[derive(Debug, Default)]
pub struct Trouble(Option<State>);

#[derive(Debug)]
struct State {
    since: Instant,
    told: Instant,
    why: String,
}

impl Trouble {
    /// It fails, because of `why`. For how long it does, if that is to be told
    /// now: at its begin, for another reason, and once in ten minutes.
    pub fn fails(&mut self, why: &str) -> Option<Duration> {
        let now = Instant::now();
        if let Some(state) = &self.0
            && state.why == why
            && now.duration_since(state.told) < REMIND
        {
            return None;
        }
        let since = self.0.as_ref().map_or(now, |state| state.since);
        self.0 = Some(State {
            since,
            told: now,
            why: why.to_owned(),
        });
        Some(now.duration_since(since))
    }

    /// It works. For how long it had failed, if it had.
    pub fn over(&mut self) -> Option<Duration> {
        Some(self.0.take()?.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let mut told = Told::default();
        let start = Instant::now();
        assert_eq!(told.more(3, start), Some(3));
        for second in 1..600 {
            assert_eq!(told.more(2, start + Duration::from_secs(second)), None);
        }
        assert_eq!(told.more(2, start + REMIND), Some(1200));
        assert_eq!(told.more(1, start + REMIND), None);
    }

    #[test]
    fn it_is_told_once_for_each_reason() {
        let mut trouble = Trouble::default();
        assert_eq!(trouble.over(), None);
        assert_eq!(trouble.fails("no route"), Some(Duration::ZERO));
        assert_eq!(trouble.fails("no route"), None);
        assert!(trouble.fails("refused").is_some());
        assert_eq!(trouble.fails("refused"), None);
        assert!(trouble.over().is_some());
        assert_eq!(trouble.over(), None);
        assert!(trouble.fails("refused").is_some());
    }

    #[test]
    fn what_goes_on_is_told_again() {
        let mut trouble = Trouble::default();
        trouble.fails("no route");
        let state = trouble.0.as_mut().unwrap();
        let Some(before) = state.told.checked_sub(REMIND) else {
            return;
        };
        (state.since, state.told) = (before, before);
        assert!(trouble.fails("no route").unwrap() >= REMIND);
        assert_eq!(trouble.fails("no route"), None);
    }
}
