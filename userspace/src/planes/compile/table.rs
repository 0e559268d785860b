//! Builds the table of rules that [`kldtrace_abi::plane::table`] asks.

use std::collections::HashMap;

use kldtrace_abi::plane::table::{SLOTS, Slots, buckets};

/// The table, and how keys were spread over it.
pub struct Table {
    /// The buckets.
    pub buckets: Vec<Slots>,
    /// The seed with which all keys found room.
    pub seed: u64,
}

impl Table {
    /// Lays out keys with their rules: each key in one of its two buckets, the
    /// first if that has room. Two of five slots are used on average, so only
    /// one key in sixty needs the second; where one finds no room at all, it
    /// begins again with another seed and more buckets.
    pub fn new(rules: &HashMap<u64, u32>) -> Self {
        // In order, so that the same policy always makes the same image.
        let mut keys: Vec<_> = rules.iter().map(|(key, rule)| (*key, *rule)).collect();
        keys.sort_unstable();
        let mut count = keys.len() / 2 + 1;
        let mut seed = 0;
        loop {
            if let Some(table) = Self::with(&keys, seed, count) {
                return table;
            }
            seed += 1;
            count += count / 4 + 1;
        }
    }

    fn with(keys: &[(u64, u32)], seed: u64, count: usize) -> Option<Self> {
        let mut table = vec![Slots::default(); count];
        for (key, rule) in keys {
            let (one, other) = buckets(*key, seed, count as u32);
            if !put(&mut table[one as usize], *key, *rule) {
                table[one as usize].more = 1;
                if !put(&mut table[other as usize], *key, *rule) {
                    return None;
                }
            }
        }
        Some(Self {
            buckets: table,
            seed,
        })
    }
}

fn put(slots: &mut Slots, key: u64, rule: u32) -> bool {
    let Some(free) = (0..SLOTS).find(|slot| slots.keys[*slot] == 0) else {
        return false;
    };
    slots.keys[free] = key;
    slots.rules[free] = rule;
    true
}
