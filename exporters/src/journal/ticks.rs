//! Times of lines that were written at once.

/// Places in a microsecond, which is as fine as journald's times are.
const PLACES: u16 = 1000;

/// Gives lines of the same microsecond times of their own, in their order:
/// all lines of one write have the same, and of those that are alike in time
/// and text Loki keeps one.
#[derive(Debug, Default)]
pub(super) struct Ticks {
    us: u64,
    next: u16,
}

impl Ticks {
    /// Goes on behind a line of this time, in microseconds since 1970, whose
    /// place is not known any more: those before it are taken to be in the
    /// first half.
    pub(super) fn resume(&mut self, us: u64) {
        (self.us, self.next) = (us, PLACES / 2);
    }

    /// The time of the next line, in nanoseconds since 1970.
    pub(super) fn place(&mut self, time_ns: u64) -> u64 {
        let us = time_ns / 1000;
        if us != self.us {
            (self.us, self.next) = (us, 0);
        }
        let place = self.next;
        self.next = (place + 1).min(PLACES - 1);
        time_ns.saturating_add(place.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_microsecond_keep_their_order() {
        let mut ticks = Ticks::default();
        let times = [5000, 5000, 5000, 6000, 6000, 5000];
        let places = times.map(|time| ticks.place(time));
        assert_eq!(places, [5000, 5001, 5002, 6000, 6001, 5000]);
        ticks.resume(5);
        assert_eq!(ticks.place(5000), 5500);
        assert_eq!(ticks.place(7000), 7000);
        let last = (0..3000).map(|_| ticks.place(8000)).last();
        assert_eq!(last, Some(8999));
    }
}
