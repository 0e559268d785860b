//! What does not work at the moment, told of often enough and not more.

use std::time::{Duration, Instant};

/// How often a trouble that goes on is told.
pub(super) const REMIND: Duration = Duration::from_mins(10);

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
