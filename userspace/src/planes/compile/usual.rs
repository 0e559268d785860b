//! Which blocks of addresses have the leaf that most have
//! ([`kldtrace_abi::plane::usual`]).

use std::{collections::HashMap, ops::Range};

use kldtrace_abi::plane::{
    Cell,
    usual::{BITS, TOP_BITS, TOP_CELLS},
};

use crate::planes::policy::Prefix;

/// Blocks in a page, 64 in a word.
const PAGE: usize = 1 << (BITS - TOP_BITS);
/// The words of a page: 1 for each block that is unusual.
type Page = [u64; PAGE / 64];

/// The cells for prefixes of one family, in ascending order and each once, with
/// their leaves. What is in none has leaf 0.
pub fn cells(entries: &[(Prefix, u32)]) -> Vec<Cell> {
    let pages = pages(entries);
    let mut numbers: HashMap<Page, u16> = HashMap::new();
    let mut cells = vec![Cell::default(); TOP_CELLS as usize];
    for (place, page) in pages.iter().enumerate() {
        // No more than there are places.
        let next = numbers.len() as u16;
        let number = *numbers.entry(*page).or_insert(next);
        if numbers.len() > usize::from(next) {
            let (cell, _) = page.as_chunks();
            cells.extend(cell.iter().copied().map(Cell));
        }
        *cells[place / 32].at_mut(place as u32) = number;
    }
    cells
}

/// A page for each of the first bits.
fn pages(entries: &[(Prefix, u32)]) -> Vec<Page> {
    let (runs, mixed) = blocks(entries);
    let mut sizes: HashMap<u32, usize> = HashMap::new();
    for (run, leaf) in &runs {
        *sizes.entry(*leaf).or_default() += run.len();
    }
    // Of two that are as usual the lower: a policy makes one image.
    let usual = sizes
        .into_iter()
        .max_by_key(|(leaf, size)| (*size, u32::MAX - leaf))
        .map_or(0, |(leaf, _)| leaf);
    let mut pages = vec![Page::default(); 1 << TOP_BITS];
    let others = runs.into_iter().filter(|(_, leaf)| *leaf != usual);
    for block in others.flat_map(|(run, _)| run).chain(mixed) {
        pages[block / PAGE][block % PAGE / 64] |= 1 << (block % 64);
    }
    pages
}

/// Runs of blocks with the leaf that their prefixes have, from the first to the
/// last without a gap, and blocks within which another leaf is as well.
fn blocks(entries: &[(Prefix, u32)]) -> (Vec<(Range<usize>, u32)>, Vec<usize>) {
    let mut runs = Vec::new();
    let mut mixed = Vec::new();
    // Prefixes that the next entry may lie in: where each ends, and its leaf.
    let mut around: Vec<(usize, u32)> = vec![(1 << BITS, 0)];
    let mut done = 0;
    for (prefix, leaf) in entries {
        let block = (prefix.bits >> (128 - BITS)) as usize;
        while let Some((end, outer)) = around.pop_if(|(end, _)| *end <= block) {
            runs.push((done..end, outer));
            done = end;
        }
        let outer = around.last().map_or(0, |(_, leaf)| *leaf);
        match BITS.checked_sub(prefix.length.into()) {
            Some(wide) => {
                runs.push((done..block, outer));
                done = block;
                around.push((block + (1 << wide), *leaf));
            }
            None if *leaf != outer => mixed.push(block),
            None => {}
        }
    }
    while let Some((end, outer)) = around.pop() {
        runs.push((done..end, outer));
        done = end;
    }
    (runs, mixed)
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{IpAddr, Ipv4Addr, Ipv6Addr},
    };

    use kldtrace_abi::plane::{
        Address, Cells, Facts,
        image::Plane,
        usual::{PAGE_CELLS, unusual},
    };
    use proptest::prelude::*;

    use super::*;

    /// Those who ask have an image, of which these cells are all that is asked.
    struct Image(Vec<Cell>);

    impl Cells for Image {
        fn cell(&self, number: u32) -> Option<&Cell> {
            self.0.get(number as usize)
        }
    }

    impl Image {
        fn new(entries: &[(Prefix, u32)]) -> Self {
            let header = Cell::default();
            Self(std::iter::once(header).chain(cells(entries)).collect())
        }

        /// Whether an address is said to be usual.
        fn says(&self, bits: u128) -> bool {
            let plane = Plane {
                usual: [1, 1],
                ..Plane::default()
            };
            let facts = Facts {
                source: Address((bits >> 64) as u64, bits as u64),
                ..Facts::default()
            };
            unusual(self, &plane, &facts) == 0
        }
    }

    /// Prefixes that lie close, around each other and on both sides of a
    /// block's length.
    fn prefixes() -> impl Strategy<Value = Vec<(Prefix, u32)>> {
        let one = (any::<bool>(), 0..4_u32, any::<u32>(), 0..=32_u8, 0..3_u32);
        prop::collection::btree_map(
            one.prop_map(|(v6, near, far, length, leaf)| {
                let bits = near << 30 | far >> 8 & 0xfff << 10 | far & 0x3ff;
                let address = if v6 {
                    IpAddr::from(Ipv6Addr::from_bits(u128::from(bits) << 96))
                } else {
                    IpAddr::from(Ipv4Addr::from_bits(bits))
                };
                (Prefix::new(address, length), leaf)
            }),
            Just(()),
            0..40,
        )
        .prop_map(|all| {
            let mut all: Vec<_> = all.into_keys().collect();
            all.dedup_by_key(|(prefix, _)| *prefix);
            all
        })
    }

    proptest! {
        /// All addresses that are said to be usual have one leaf, that of the
        /// longest prefix that they lie in.
        #[test]
        fn usual_addresses_have_one_leaf(entries in prefixes(), asked in prop::collection::vec(any::<u32>(), 200)) {
            for v6 in [false, true] {
                let own: Vec<_> = entries.iter().copied().filter(|(prefix, _)| prefix.v6 == v6).collect();
                let image = Image::new(&own);
                let leaf = |bits: u128| {
                    let within = own.iter().filter(|(prefix, _)| (prefix.bits..=prefix.last()).contains(&bits));
                    within.max_by_key(|(prefix, _)| prefix.length).map_or(0, |(_, leaf)| *leaf)
                };
                let ends = own.iter().flat_map(|(prefix, _)| {
                    [prefix.bits, prefix.last(), prefix.bits.wrapping_sub(1), prefix.last().wrapping_add(1)]
                });
                let asked = asked.iter().map(|bits| u128::from(*bits) << 96);
                let found: BTreeSet<u32> = ends
                    .chain(asked)
                    .filter(|bits| image.says(*bits))
                    .map(leaf)
                    .collect();
                prop_assert!(found.len() <= 1, "{:?}", found);
            }
        }
    }

    fn v4(bytes: [u8; 4], length: u8, leaf: u32) -> (Prefix, u32) {
        (Prefix::new(Ipv4Addr::from(bytes).into(), length), leaf)
    }

    fn v4_bits(bytes: [u8; 4]) -> u128 {
        u128::from(u32::from_be_bytes(bytes)) << 96
    }

    #[test]
    fn the_world_may_be_a_planes() {
        let image = Image::new(&[v4([0; 4], 0, 7), v4([10, 0, 0, 0], 8, 1)]);
        assert!(image.says(v4_bits([8, 8, 8, 8])));
        assert!(!image.says(v4_bits([10, 255, 255, 255])));
        assert!(image.says(v4_bits([11, 0, 0, 0])));
    }

    #[test]
    fn bits_take_what_the_prefixes_need() {
        let few = Image::new(&[v4([10, 0, 0, 0], 24, 1), v4([224, 0, 0, 0], 4, 2)]);
        // One page without, one with one, and one of all.
        assert_eq!(few.0.len() as u32, 1 + TOP_CELLS + 3 * PAGE_CELLS);
        assert!(!few.says(v4_bits([10, 0, 3, 255])) && few.says(v4_bits([10, 0, 4, 0])));
        let many = (0..100_000_u32).map(|number| v4((number * 42_949).to_be_bytes(), 32, 1));
        let many: Vec<_> = many.collect();
        let unusual = pages(&many).into_iter().flatten().map(u64::count_ones);
        assert_eq!(unusual.sum::<u32>(), 100_000);
        assert!(Image::new(&many).0.len() as u32 <= 1 + TOP_CELLS + (1 << TOP_BITS) * PAGE_CELLS);
    }
}
