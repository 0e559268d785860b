//! From `CLOCK_MONOTONIC`, which the probes have, to the time of day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Both clocks, compared at one moment.
pub struct Clock {
    /// Nanoseconds since 1970 when the monotonic clock was 0.
    origin: u64,
}

impl Clock {
    /// Compares both clocks now.
    pub fn now() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH);
        let wall = wall.unwrap_or_default().as_nanos() as u64;
        Self {
            origin: wall.saturating_sub(monotonic()),
        }
    }

    /// Nanoseconds since 1970 (UTC) at a time of the probes.
    pub fn wall(&self, monotonic: u64) -> u64 {
        self.origin.saturating_add(monotonic)
    }

    /// A clock whose monotonic time was 0 so many nanoseconds after 1970.
    #[cfg(test)]
    pub fn starting_at(origin: u64) -> Self {
        Self { origin }
    }
}

/// Now, by the clock of the probes, in nanoseconds.
pub fn monotonic() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(Duration::ZERO, Duration::from)
        .as_nanos() as u64
}
