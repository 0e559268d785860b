//! A limit on each unit's lines.

use std::collections::HashMap;

/// How many lines of one unit are shipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Lines per second in the long run; at least 1.
    pub per_second: u32,
    /// Lines at once; at least 1.
    pub burst: u32,
}

/// Units that have a bucket of their own. When there are more, those that are
/// full again are forgotten; if none is, the rest share one.
const UNITS: usize = 4096;

/// A token, in parts that one nanosecond brings at one line per second.
const TOKEN: u64 = 1_000_000_000;

/// What was left out of one unit's lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The unit; [`OTHERS`] for those that share a bucket.
    pub unit: String,
    /// How many lines.
    pub lines: u64,
    /// Time of the last of them, in nanoseconds since 1970.
    pub time_ns: u64,
}

/// The unit in place of those without a bucket of their own.
pub const OTHERS: &str = "other";

#[derive(Debug)]
struct Bucket {
    tokens: u64,
    time_ns: u64,
    left_out: u64,
}

/// Token buckets by unit. Their time is the lines' own: what was written in an
/// hour while nobody read is no flood when it is read in a second.
#[derive(Debug)]
pub struct Limiter {
    limit: Limit,
    buckets: HashMap<String, Bucket>,
}

impl Limiter {
    /// One that has seen no line yet.
    pub fn new(limit: Limit) -> Self {
        let limit = Limit {
            per_second: limit.per_second.max(1),
            burst: limit.burst.max(1),
        };
        Self {
            limit,
            buckets: HashMap::new(),
        }
    }

    fn full(&self) -> u64 {
        u64::from(self.limit.burst) * TOKEN
    }

    /// Whether a line of this unit may go; if not, it counts as left out.
    pub fn admits(&mut self, unit: &str, time_ns: u64) -> bool {
        let (full, rate) = (self.full(), u64::from(self.limit.per_second));
        if !self.buckets.contains_key(unit) {
            let unit = if self.room(time_ns) { unit } else { OTHERS };
            self.buckets.entry(unit.to_owned()).or_insert(Bucket {
                tokens: full,
                time_ns,
                left_out: 0,
            });
        }
        let unit = if self.buckets.contains_key(unit) {
            unit
        } else {
            OTHERS
        };
        let Some(bucket) = self.buckets.get_mut(unit) else {
            return true;
        };
        // A clock that was set back brings nothing, and goes on from there.
        let gained = time_ns.saturating_sub(bucket.time_ns).saturating_mul(rate);
        bucket.tokens = bucket.tokens.saturating_add(gained).min(full);
        bucket.time_ns = time_ns;
        if bucket.tokens >= TOKEN {
            bucket.tokens -= TOKEN;
            return true;
        }
        bucket.left_out += 1;
        false
    }

    fn room(&mut self, now: u64) -> bool {
        if self.buckets.len() < UNITS {
            return true;
        }
        let (full, rate) = (self.full(), u64::from(self.limit.per_second));
        self.buckets.retain(|_, bucket| {
            let gained = now.saturating_sub(bucket.time_ns).saturating_mul(rate);
            bucket.left_out > 0 || bucket.tokens.saturating_add(gained) < full
        });
        self.buckets.len() < UNITS
    }

    /// What was left out since this was last asked, of up to `most` units: those
    /// of the most lines. Of the others it is told the next time.
    pub fn left_out(&mut self, most: usize) -> Vec<LeftOut> {
        let buckets = self.buckets.iter_mut();
        let mut all: Vec<_> = buckets.filter(|(_, bucket)| bucket.left_out > 0).collect();
        all.sort_by(|(unit, one), (other, another)| {
            let lines = another.left_out.cmp(&one.left_out);
            lines.then_with(|| unit.cmp(other))
        });
        let told = all.into_iter().take(most).map(|(unit, bucket)| LeftOut {
            unit: unit.clone(),
            lines: std::mem::take(&mut bucket.left_out),
            time_ns: bucket.time_ns,
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn limiter() -> Limiter {
        Limiter::new(Limit {
            per_second: 10,
            burst: 100,
        })
    }

    /// How many of `lines` in the second that begins at `from` pass.
    fn pass(limiter: &mut Limiter, unit: &str, from: u64, lines: u64) -> usize {
        let times = (0..lines).map(|line| from + line * SECOND / lines);
        times.filter(|time| limiter.admits(unit, *time)).count()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limiter = limiter();
        // The burst and what the second brought.
        assert_eq!(pass(&mut limiter, "a", SECOND, 1000), 109);
        assert_eq!(pass(&mut limiter, "a", 2 * SECOND, 1000), 10);
        assert_eq!(pass(&mut limiter, "b", 2 * SECOND, 50), 50);
        let left_out = limiter.left_out(9);
        assert_eq!(left_out.len(), 1);
        assert_eq!((&*left_out[0].unit, left_out[0].lines), ("a", 1881));
        assert_eq!(left_out[0].time_ns, 3 * SECOND - SECOND / 1000);
        assert_eq!(limiter.left_out(9), []);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_stop_it() {
        let mut limiter = limiter();
        assert_eq!(pass(&mut limiter, "a", 10_000 * SECOND, 200), 109);
        assert_eq!(pass(&mut limiter, "a", 5 * SECOND, 200), 10);
        assert_eq!(pass(&mut limiter, "a", 6 * SECOND, 200), 10);
        assert_eq!(pass(&mut limiter, "a", u64::MAX - 2 * SECOND, 200), 109);
    }

    #[test]
    fn of_many_units_those_with_the_most_lines_are_told_first() {
        let mut limiter = Limiter::new(Limit {
            per_second: 1,
            burst: 1,
        });
        for (unit, lines) in [("a", 3), ("b", 1), ("c", 5), ("d", 3)] {
            pass(&mut limiter, unit, SECOND, lines);
        }
        let mut told = || {
            let told = limiter.left_out(2).into_iter();
            told.map(|one| (one.unit, one.lines)).collect::<Vec<_>>()
        };
        assert_eq!(told(), [("c".to_owned(), 4), ("a".to_owned(), 2)]);
        assert_eq!(told(), [("d".to_owned(), 2)]);
        assert_eq!(told(), []);
    }

    #[test]
    fn units_without_number_take_no_memory_without_bound() {
        let mut limiter = Limiter::new(Limit {
            per_second: 1,
            burst: 2,
        });
        for unit in 0..UNITS * 3 {
            limiter.admits(&unit.to_string(), SECOND);
        }
        assert_eq!(limiter.buckets.len(), UNITS + 1);
        assert_eq!(limiter.left_out(1)[0].unit, OTHERS);
        // When they are full again, there is room.
        assert!(limiter.admits("new", 10 * SECOND));
        assert_eq!(limiter.buckets.len(), 1);
    }
}
