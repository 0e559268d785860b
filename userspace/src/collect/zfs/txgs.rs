//! Transaction groups: how long each was open, quiescing, waiting and syncing.
//!
//! Each pool keeps the times of its last groups itself, exact to the
//! nanosecond (module/zfs/spa_stats.c: `spa_txg_history`), in the file `txgs`:
//! one line for a group, its columns named in the first line.

use std::collections::BTreeMap;

use kldtrace_abi::histogram::Histogram;

/// How many groups each pool remembers (module/zfs/spa_stats.c:
/// `zfs_txg_history`); 0 turns the file off.
pub const HISTORY: &str = "/sys/module/zfs/parameters/zfs_txg_history";

/// Whether nothing is remembered.
pub fn forgotten() -> bool {
    std::fs::read_to_string(HISTORY).is_ok_and(|text| text.trim() == "0")
}

/// The columns that are times, and the value of the label `phase`.
pub const PHASES: [(&str, &str); 4] = [
    ("otime", "open"),
    ("qtime", "quiesce"),
    ("wtime", "wait"),
    ("stime", "sync"),
];

/// The groups of one pool that have finished since it was first looked at.
pub struct Pool {
    /// Time in each phase, in the order of [`PHASES`].
    pub phases: Box<[Histogram; PHASES.len()]>,
    /// Groups that had left the pool's memory before they were read.
    pub lost: u64,
    newest: u64,
}

/// The groups of all pools, by pool.
#[derive(Default)]
pub struct Txgs(BTreeMap<String, Pool>);

impl Txgs {
    /// The pools and their groups.
    pub fn pools(&self) -> impl Iterator<Item = (&str, &Pool)> {
        self.0.iter().map(|(name, pool)| (name.as_str(), pool))
    }

    /// Groups that were never read, of all pools.
    pub fn lost(&self) -> u64 {
        self.0.values().map(|pool| pool.lost).sum()
    }

    /// Takes in the text of a pool's file. What was finished when the pool was
    /// first looked at is not counted.
    pub fn take(&mut self, pool: &str, text: &str) {
        let groups = finished(text);
        let Some(newest) = groups.iter().map(|group| group.number).max() else {
            return;
        };
        let Some(pool) = self.0.get_mut(pool) else {
            let fresh = Pool {
                phases: Box::new([Histogram::EMPTY; PHASES.len()]),
                lost: 0,
                newest,
            };
            self.0.insert(pool.to_owned(), fresh);
            return;
        };
        // A pool that was imported anew, or rolled back, counts from there.
        if newest < pool.newest {
            pool.newest = newest;
            return;
        }
        let new: Vec<_> = groups
            .iter()
            .filter(|group| group.number > pool.newest)
            .collect();
        pool.lost += (newest - pool.newest).saturating_sub(new.len() as u64);
        pool.newest = newest;
        for group in new {
            for (histogram, time) in pool.phases.iter_mut().zip(group.times) {
                // SAFETY: the histogram is ours alone.
                unsafe { Histogram::record(histogram, time) };
            }
        }
    }

    /// Forgets pools that are gone.
    pub fn keep(&mut self, pools: &[String]) {
        self.0.retain(|name, _| pools.contains(name));
    }
}

/// A group that is synced.
struct Group {
    number: u64,
    times: [u64; PHASES.len()],
}

fn finished(text: &str) -> Vec<Group> {
    let mut columns: Option<Vec<&str>> = None;
    let mut groups = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(columns) = &columns else {
            if words.first() == Some(&"txg") {
                columns = Some(words);
            }
            continue;
        };
        let value = |name: &str| {
            let at = columns.iter().position(|column| *column == name)?;
            words.get(at).copied()
        };
        // TXG_STATE_COMMITTED; the others are still under way.
        if value("state") != Some("C") {
            continue;
        }
        let Some(number) = value("txg").and_then(|text| text.parse().ok()) else {
            continue;
        };
        let times = PHASES.map(|(column, _)| value(column).and_then(|text| text.parse().ok()));
        if let [Some(open), Some(quiesce), Some(wait), Some(sync)] = times {
            groups.push(Group {
                number,
                times: [open, quiesce, wait, sync],
            });
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "txg      birth            state ndirty       nread        nwritten     reads    writes   otime        qtime        wtime        stime\n";

    fn line(txg: u64, state: &str, stime: u64) -> String {
        format!("{txg} 1695378909402 {state} 0 0 0 0 0 5000000000 1000 20000 {stime}\n")
    }

    fn sync(txgs: &Txgs) -> (u64, u64, u64) {
        let (_, pool) = txgs.pools().next().unwrap();
        (pool.phases[3].count(), pool.phases[3].sum, pool.lost)
    }

    #[test]
    fn each_group_counts_once_when_it_is_synced() {
        let mut txgs = Txgs::default();
        txgs.take("tank", &[HEAD, &line(4, "C", 7), &line(5, "S", 0)].concat());
        assert_eq!(sync(&txgs), (0, 0, 0));
        let text = [HEAD, &line(4, "C", 7), &line(5, "C", 30), &line(6, "O", 0)].concat();
        txgs.take("tank", &text);
        txgs.take("tank", &text);
        assert_eq!(sync(&txgs), (1, 30, 0));
        assert_eq!(txgs.pools().next().unwrap().1.phases[0].sum, 5_000_000_000);
    }

    #[test]
    fn groups_that_were_forgotten_are_counted_as_lost() {
        let mut txgs = Txgs::default();
        txgs.take("tank", &[HEAD, &line(4, "C", 7)].concat());
        txgs.take("tank", &[HEAD, &line(8, "C", 1), &line(9, "C", 2)].concat());
        assert_eq!(sync(&txgs), (2, 3, 3));
    }

    #[test]
    fn a_pool_that_begins_anew_does_not_count_backwards() {
        let mut txgs = Txgs::default();
        txgs.take("tank", &[HEAD, &line(900, "C", 7)].concat());
        txgs.take("tank", &[HEAD, &line(4, "C", 7)].concat());
        txgs.take("tank", &[HEAD, &line(4, "C", 7), &line(5, "C", 8)].concat());
        assert_eq!(sync(&txgs), (1, 8, 0));
        txgs.keep(&[]);
        assert_eq!(txgs.pools().count(), 0);
    }

    #[test]
    fn garbled_text_is_passed_over() {
        for text in [
            "",
            "txg state\n",
            "1 2 C\n",
            "txg\nC\n",
            &[HEAD, "x y C\n"].concat(),
        ] {
            assert!(finished(text).is_empty(), "{text:?}");
        }
    }
}
