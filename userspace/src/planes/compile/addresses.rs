//! From prefixes to classes of addresses, and to what a trie holds.

use std::{collections::HashMap, ops::Range};

use kldtrace_abi::plane::Leaf;

use super::{
    TooLarge,
    refine::{Classes, refine},
};
use crate::planes::policy::{Policy, Prefix};

/// Lists of prefixes, each kept once: what rules ask of addresses.
#[derive(Default)]
pub struct Selectors<'a> {
    lists: Vec<&'a [Prefix]>,
    known: HashMap<&'a [Prefix], usize>,
}

impl<'a> Selectors<'a> {
    /// The number of a list.
    pub fn number(&mut self, list: &'a [Prefix]) -> usize {
        *self.known.entry(list).or_insert_with(|| {
            self.lists.push(list);
            self.lists.len() - 1
        })
    }
}

/// The classes of one side's addresses.
pub struct Addresses {
    /// Every prefix that anything asks for, ascending, with its leaf.
    pub leaves: Vec<(Prefix, u32)>,
    /// The classes that each selector covers.
    pub covered: Vec<Vec<u32>>,
    /// Classes, 0 included.
    pub count: u32,
    /// By class: whether addresses of IPv4 (1) and of IPv6 (2) are in it.
    pub families: Vec<u8>,
}

impl Addresses {
    /// Finds the classes. Those that `listed` selectors cover are numbered
    /// from 1 without a gap.
    pub fn new(
        policy: &Policy,
        selectors: &Selectors<'_>,
        listed: &[usize],
    ) -> Result<Self, TooLarge> {
        let planes = policy.planes.iter().flat_map(|plane| &plane.prefixes);
        let mut prefixes: Vec<Prefix> =
            selectors.lists.iter().copied().flatten().copied().collect();
        prefixes.extend(planes);
        prefixes.extend(Prefix::NOWHERE);
        prefixes.sort_unstable();
        prefixes.dedup();
        let ranges = selectors.lists.iter().map(|list| covering(&prefixes, list));
        let ranges: Vec<_> = ranges.collect();
        let classes = refine(prefixes.len(), &ranges).ok_or(TooLarge::Addresses)?;
        if classes.count > Leaf::CLASSES {
            return Err(TooLarge::Addresses);
        }
        Ok(Self::from_classes(policy, prefixes, &classes, listed))
    }

    fn from_classes(
        policy: &Policy,
        prefixes: Vec<Prefix>,
        classes: &Classes,
        listed: &[usize],
    ) -> Self {
        let mut on_list = vec![false; classes.count as usize];
        for class in listed.iter().flat_map(|number| &classes.covered[*number]) {
            on_list[*class as usize] = true;
        }
        // Listed ones first, so that their table has no gaps.
        let mut order: Vec<u32> = (1..classes.count).collect();
        order.sort_by_key(|class| !on_list[*class as usize]);
        let mut renamed = vec![0; classes.count as usize];
        for (place, class) in order.iter().enumerate() {
            renamed[*class as usize] = place as u32 + 1;
        }
        let planes = planes_of(policy, &prefixes);
        let (own, outside) = not_empty(&prefixes);
        let mut families = vec![0; classes.count as usize];
        families[0] = outside;
        let mut leaves = Vec::with_capacity(prefixes.len());
        for (place, prefix) in prefixes.into_iter().enumerate() {
            let class = classes.of[place] as usize;
            if own[place] {
                families[renamed[class] as usize] |= family(prefix.v6);
            }
            let leaf = Leaf::new(renamed[class], planes[place], on_list[class]);
            leaves.push((prefix, leaf.0));
        }
        let covered = classes.covered.iter().map(|covered| {
            let mut names: Vec<u32> = covered
                .iter()
                .map(|class| renamed[*class as usize])
                .collect();
            names.sort_unstable();
            names
        });
        Self {
            leaves,
            covered: covered.collect(),
            count: classes.count,
            families,
        }
    }

    /// The prefixes of one family with their leaves.
    pub fn family(&self, v6: bool) -> &[(Prefix, u32)] {
        let split = self.leaves.partition_point(|(prefix, _)| !prefix.v6);
        if v6 {
            &self.leaves[split..]
        } else {
            &self.leaves[..split]
        }
    }
}

/// Where those that lie within `list` stand among the sorted `prefixes`, which
/// have all of the list.
fn covering(prefixes: &[Prefix], list: &[Prefix]) -> Vec<Range<usize>> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for prefix in sorted {
        let start = prefixes.partition_point(|other| *other < prefix);
        if ranges.last().is_some_and(|range| start < range.end) {
            continue;
        }
        let within = |other: &Prefix| other.v6 == prefix.v6 && other.bits <= prefix.last();
        let end = start + prefixes[start..].partition_point(within);
        ranges.push(start..end);
    }
    ranges
}

/// The bit of a family.
fn family(v6: bool) -> u8 {
    if v6 { 2 } else { 1 }
}

/// Which of the sorted prefixes have addresses that lie in none of those
/// within them, and the families of which some address lies in no prefix.
fn not_empty(prefixes: &[Prefix]) -> (Vec<bool>, u8) {
    // All of a family is one more than fits: full all the same.
    let size = |prefix: Prefix| {
        let bits = 128 - u32::from(prefix.length);
        1_u128.checked_shl(bits).unwrap_or(u128::MAX)
    };
    let mut covered = vec![0_u128; prefixes.len()];
    let mut top = [0_u128; 2];
    let mut around: Vec<usize> = Vec::new();
    for (place, prefix) in prefixes.iter().enumerate() {
        while around
            .last()
            .is_some_and(|outer| !prefixes[*outer].contains(*prefix))
        {
            around.pop();
        }
        let sum = match around.last() {
            Some(outer) => &mut covered[*outer],
            None => &mut top[usize::from(prefix.v6)],
        };
        *sum = sum.saturating_add(size(*prefix));
        around.push(place);
    }
    let own = prefixes.iter().zip(covered);
    let own = own
        .map(|(prefix, covered)| covered < size(*prefix))
        .collect();
    let open = |v6: bool| {
        if top[usize::from(v6)] < u128::MAX {
            family(v6)
        } else {
            0
        }
    };
    (own, open(false) | open(true))
}

/// The number of the plane that each of the sorted prefixes belongs to: that
/// of the longest that contains it.
fn planes_of(policy: &Policy, prefixes: &[Prefix]) -> Vec<u8> {
    let mut own: HashMap<Prefix, u8> = HashMap::new();
    for plane in &policy.planes {
        for prefix in &plane.prefixes {
            own.entry(*prefix).or_insert(plane.number);
        }
    }
    for prefix in Prefix::NOWHERE {
        own.entry(prefix).or_insert(0);
    }
    let mut around: Vec<(Prefix, u8)> = Vec::new();
    let plane_of = |prefix: &Prefix| {
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(*prefix))
        {
            around.pop();
        }
        let inherited = around.last().map_or(0, |(_, plane)| *plane);
        let plane = own.get(prefix).copied().unwrap_or(inherited);
        around.push((*prefix, plane));
        plane
    };
    prefixes.iter().map(plane_of).collect()
}
