//! What is told of answers that may come with every push.

use std::time::Instant;

use super::trouble::REMIND;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
