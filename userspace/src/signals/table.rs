//! Accounts by label: summed over the cgroups that share a label, kept when
//! their cgroup is gone, and bounded.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    hash::Hash,
};

use super::maps::Sum;

/// The value of a label whose series found no room of their own.
pub const OTHER_LABEL: &str = "other";

/// Labels whose cgroups are all gone that keep their own series, at most; older
/// ones go to `other`, so that totals stay and memory does not grow.
const RETIRED: usize = 256;

/// One account as it was read.
pub struct Entry<L, A> {
    /// Its labels.
    pub labels: L,
    /// Its numbers.
    pub account: Box<A>,
    /// Whether its owner is gone and the map's entry will be removed now.
    pub gone: bool,
}

/// Sums by label.
pub struct Table<L, A> {
    /// Label sets with series of their own.
    admitted: HashSet<L>,
    limit: usize,
    /// Label sets of the gone that keep their series.
    keep: usize,
    /// What the gone have left.
    retired: HashMap<L, Box<A>>,
    order: VecDeque<L>,
    other: L,
    /// Label sets that went to `other` between the last two readings.
    pub folded: u64,
    /// The same since the last reading.
    folding: u64,
}

impl<L: Clone + Eq + Hash, A: Sum> Table<L, A> {
    /// `limit`: label sets with series of their own; `other`: the label of
    /// the rest.
    pub fn new(limit: usize, other: L) -> Self {
        Self {
            admitted: HashSet::new(),
            limit,
            // The dead must not hold all series of a small limit.
            keep: RETIRED.min(limit / 2),
            retired: HashMap::new(),
            order: VecDeque::new(),
            other,
            folded: 0,
            folding: 0,
        }
    }

    /// The labels of the rest.
    pub fn other(&self) -> &L {
        &self.other
    }

    /// Sums one reading of a map. Sums never go backwards: what a gone cgroup
    /// counted stays in its label's sum.
    pub fn sum(&mut self, entries: impl IntoIterator<Item = Entry<L, A>>) -> HashMap<L, Box<A>> {
        let mut sums: HashMap<L, Box<A>> = HashMap::new();
        for entry in entries {
            let labels = self.admit(entry.labels);
            if entry.gone {
                self.retire(labels, &entry.account);
            } else {
                add(&mut sums, labels, &entry.account);
            }
        }
        self.folded = std::mem::take(&mut self.folding);
        self.shrink(&sums);
        for (labels, account) in &self.retired {
            add(&mut sums, labels.clone(), account);
        }
        // The accounts of `other` are always there; mostly they are empty.
        sums.retain(|labels, account| *labels != self.other || !account.is_zero());
        sums
    }

    fn admit(&mut self, labels: L) -> L {
        if labels == self.other || self.admitted.contains(&labels) {
            return labels;
        }
        if self.admitted.len() < self.limit {
            self.admitted.insert(labels.clone());
            return labels;
        }
        self.folding += 1;
        self.other.clone()
    }

    /// Keeps what a gone cgroup has counted in its label's sum.
    pub fn keep(&mut self, labels: L, account: &A) {
        let labels = self.admit(labels);
        self.retire(labels, account);
    }

    fn retire(&mut self, labels: L, account: &A) {
        if !self.retired.contains_key(&labels) && labels != self.other {
            self.order.push_back(labels.clone());
        }
        add(&mut self.retired, labels, account);
    }

    /// Moves the oldest retired labels to `other`. One that lives again, as a
    /// restarted unit does, keeps its series: its sum must not go backwards.
    fn shrink(&mut self, living: &HashMap<L, Box<A>>) {
        let mut looked_at = 0;
        while self.order.len() > self.keep && looked_at < self.order.len() {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if living.contains_key(&oldest) {
                self.order.push_back(oldest);
                looked_at += 1;
                continue;
            }
            self.admitted.remove(&oldest);
            if let Some(account) = self.retired.remove(&oldest) {
                add(&mut self.retired, self.other.clone(), &account);
            }
        }
    }
}

fn add<L: Eq + Hash, A: Sum>(to: &mut HashMap<L, Box<A>>, labels: L, account: &A) {
    to.entry(labels)
        .or_insert_with(|| Box::new(A::ZERO))
        .add(account);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy, PartialEq, Debug)]
    struct Count(u64);
    impl Sum for Count {
        const ZERO: Self = Self(0);
        fn add(&mut self, other: &Self) {
            self.0 += other.0;
        }
        fn is_zero(&self) -> bool {
            self.0 == 0
        }
    }

    fn entry(labels: &str, count: u64, gone: bool) -> Entry<String, Count> {
        Entry {
            labels: labels.to_owned(),
            account: Box::new(Count(count)),
            gone,
        }
    }

    fn total(sums: &HashMap<String, Box<Count>>) -> u64 {
        sums.values().map(|count| count.0).sum()
    }

    #[test]
    fn sums_do_not_go_backwards_when_a_unit_restarts() {
        let mut table = Table::new(10, "other".to_owned());
        let sums = table.sum([entry("a", 5, false), entry("a", 2, false)]);
        assert_eq!(sums["a"].0, 7);
        let sums = table.sum([entry("a", 9, true), entry("a", 2, false)]);
        assert_eq!(sums["a"].0, 11);
        let sums = table.sum([entry("a", 3, false)]);
        assert_eq!(sums["a"].0, 12);
    }

    #[test]
    fn what_finds_no_room_goes_to_other_and_is_counted() {
        let mut table = Table::new(2, "other".to_owned());
        let sums = table.sum((0..5).map(|i| entry(&i.to_string(), 1, false)));
        assert_eq!((sums.len(), sums["other"].0, table.folded), (3, 3, 3));
    }

    #[test]
    fn the_dead_do_not_hold_a_small_limit() {
        let mut table = Table::new(10, "other".to_owned());
        for i in 0..30 {
            table.sum([entry(&i.to_string(), 1, true)]);
        }
        let sums = table.sum([entry("lives", 1, false)]);
        assert_eq!((sums["lives"].0, total(&sums)), (1, 31));
    }

    #[test]
    fn ten_thousand_short_lives_stay_bounded_and_lose_nothing() {
        let mut table = Table::new(1000, "other".to_owned());
        for i in 0..10_000_u64 {
            let sums = table.sum([entry("stays", i, false), entry(&i.to_string(), 1, true)]);
            assert_eq!(total(&sums), i + i + 1);
            assert!(sums.len() <= RETIRED + 2);
        }
        assert!(table.admitted.len() <= RETIRED + 1);
    }
}
