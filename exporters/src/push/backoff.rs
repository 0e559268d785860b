//! How long to wait before the same is tried again.

use std::time::Duration;

/// The first wait, about.
const FIRST: Duration = Duration::from_millis(500);
/// The longest wait that a receiver can ask for.
const ASKED: Duration = Duration::from_mins(5);

/// Waits that double, each with a random part, so that a fleet does not come
/// back all at once.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// `longest`: of all waits that the receiver did not ask for.
    pub fn new(longest: Duration) -> Self {
        Self {
            next: FIRST.min(longest),
            longest,
        }
    }

    /// The next wait: between half of its time and all of it, and not before
    /// the receiver wants it.
    pub fn wait(&mut self, asked: Option<Duration>) -> Duration {
        let base = self.next;
        self.next = (base * 2).min(self.longest);
        let own = base.mul_f64(0.5 + 0.5 * fastrand::f64());
        let asked = asked.unwrap_or_default().min(ASKED);
        own.max(asked.mul_f64(1.0 + 0.1 * fastrand::f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let mut backoff = Backoff::new(Duration::from_mins(1));
        for expected in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] {
            let wait = backoff.wait(None).as_secs_f64();
            assert!((expected / 2.0..=expected).contains(&wait), "{wait}");
        }
    }

    #[test]
    fn nodes_do_not_wait_alike() {
        let waits = (0..100).map(|_| Backoff::new(FIRST).wait(None));
        let waits: std::collections::HashSet<_> = waits.collect();
        assert!(waits.len() > 90, "{}", waits.len());
    }

    #[test]
    fn a_receiver_may_ask_for_more_but_not_for_ever() {
        let mut backoff = Backoff::new(Duration::from_mins(1));
        let wait = |backoff: &mut Backoff, asked| {
            backoff.wait(Some(Duration::from_secs(asked))).as_secs_f64()
        };
        assert!((30.0..=33.0).contains(&wait(&mut backoff, 30)));
        assert!((300.0..=330.0).contains(&wait(&mut backoff, 1_000_000)));
        assert!((1.0..=2.0).contains(&wait(&mut backoff, 0)));
    }
}
