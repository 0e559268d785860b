//! Which sources have the leaf that most have, or that most of the others have
//! ([`kldtrace_abi::plane::kind`]).

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use kldtrace_abi::plane::{
    Cell,
    kind::{BITS, GROUPS, Group, PART_BITS, Parts, TOP_BITS, TOP_CELLS},
};

use super::image::Writer;
use crate::planes::policy::Prefix;

/// Blocks in a page, 64 in a word.
const PAGE: usize = 1 << (BITS - TOP_BITS);
/// Parts of a block.
const PARTS: usize = 1 << (PART_BITS - BITS);

/// What an image says of the sources of one family.
pub struct Kinds {
    /// The numbers of pages, and the pages.
    pub cells: Vec<Cell>,
    /// What is said of the blocks of each page. Their parts are numbered from 0.
    pub groups: Vec<Group>,
    /// What is said of the blocks that are mixed.
    pub parts: Vec<Parts>,
}

/// What is said of a page's blocks.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
struct Page {
    own: [u64; PAGE / 64],
    second: [u64; PAGE / 64],
    /// The blocks that are mixed.
    mixed: BTreeMap<usize, Parts>,
}

impl Kinds {
    /// For prefixes of one family, in ascending order and each once, with
    /// their leaves. What is in none has leaf 0.
    pub fn new(entries: &[(Prefix, u32)]) -> Self {
        let mut numbers: HashMap<Page, u16> = HashMap::new();
        let mut kinds = Self {
            cells: vec![Cell::default(); TOP_CELLS as usize],
            groups: Vec::new(),
            parts: Vec::new(),
        };
        for (place, page) in pages(entries).into_iter().enumerate() {
            // No more than there are places.
            let next = numbers.len() as u16;
            let number = *numbers.entry(page.clone()).or_insert(next);
            if number == next {
                kinds.lay_out(&page);
            }
            *kinds.cells[place / 32].at_mut(place as u32) = number;
        }
        kinds
    }

    /// Writes them, those of IPv4 first, and says the cells at which their
    /// pages begin and the numbers of their first groups.
    pub fn write(families: [Self; 2], cells: &mut Writer) -> [[u32; 2]; 2] {
        // Of each in a cell.
        const GROUPS: u32 = (size_of::<Cell>() / size_of::<Group>()) as u32;
        const PARTS: u32 = (size_of::<Cell>() / size_of::<Parts>()) as u32;
        let pages = families.each_ref().map(|kinds| {
            let first = cells.next();
            cells.0.extend_from_slice(&kinds.cells);
            first
        });
        // They follow the groups, which come in pages and so in whole cells.
        let groups: usize = families.iter().map(|kinds| kinds.groups.len()).sum();
        let mut parts = (cells.next() + groups as u32 / GROUPS) * PARTS;
        let groups = families.each_ref().map(|kinds| {
            let first = cells.items(kinds.groups.iter().map(|group| Group {
                parts: (parts + group.parts).wrapping_sub(1),
                ..*group
            }));
            parts += kinds.parts.len() as u32;
            first * GROUPS
        });
        cells.items(families.into_iter().flat_map(|kinds| kinds.parts));
        [pages, groups]
    }

    /// Adds a page.
    fn lay_out(&mut self, page: &Page) {
        let mut mixed = [0; GROUPS as usize];
        for block in page.mixed.keys() {
            mixed[block / 64] |= 1 << (block % 64);
        }
        let words = page.own.iter().zip(&page.second).zip(&mixed);
        let bits: Vec<u64> = words
            .map(|((own, second), mixed)| own | second | mixed)
            .collect();
        let (cells, _) = bits.as_chunks();
        self.cells.extend(cells.iter().copied().map(Cell));
        let mut parts = self.parts.len() as u32;
        for (second, mixed) in page.second.into_iter().zip(mixed) {
            self.groups.push(Group {
                mixed,
                second,
                parts,
                ..Group::default()
            });
            parts += mixed.count_ones();
        }
        self.parts.extend(page.mixed.values());
    }
}

/// A page for each of the first bits.
fn pages(entries: &[(Prefix, u32)]) -> Vec<Page> {
    let (runs, mixed) = runs(entries);
    let mut sizes: HashMap<u32, usize> = HashMap::new();
    for (run, leaf) in &runs {
        *sizes.entry(*leaf).or_default() += run.len();
    }
    // Of two that are as common the lower: a policy makes one image.
    let mut common: Vec<(u32, usize)> = sizes.into_iter().collect();
    common.sort_unstable_by_key(|(leaf, size)| (usize::MAX - size, *leaf));
    let mut common = common.into_iter().map(|(leaf, _)| leaf);
    let (usual, second) = (common.next(), common.next());
    let mut pages = vec![Page::default(); 1 << TOP_BITS];
    // Blocks that are of one kind in part.
    let mut blocks: BTreeMap<usize, Parts> = BTreeMap::new();
    for (run, leaf) in runs {
        if Some(leaf) == usual {
            continue;
        }
        let is_second = Some(leaf) == second;
        for (block, within) in by_block(run) {
            if within == u64::MAX {
                let page = &mut pages[block / PAGE];
                let words = if is_second {
                    &mut page.second
                } else {
                    &mut page.own
                };
                words[block % PAGE / 64] |= 1 << (block % 64);
            } else {
                let parts = blocks.entry(block).or_default();
                let bits = if is_second {
                    &mut parts.second
                } else {
                    &mut parts.own
                };
                *bits |= within;
            }
        }
    }
    for part in mixed {
        let block = part / PARTS;
        let page = &mut pages[block / PAGE];
        let (word, bit) = (block % PAGE / 64, 1 << (block % 64));
        // Whole as it was, up to here.
        let whole = |bits: &[u64]| u64::from(bits[word] & bit != 0).wrapping_neg();
        let parts = blocks.entry(block).or_insert_with(|| Parts {
            own: whole(&page.own),
            second: whole(&page.second),
        });
        page.own[word] &= !bit;
        page.second[word] &= !bit;
        parts.own |= 1 << (part % PARTS);
        parts.second &= !(1 << (part % PARTS));
    }
    for (block, parts) in blocks {
        let page = &mut pages[block / PAGE];
        let (word, bit) = (block % PAGE / 64, 1 << (block % 64));
        match (parts.own, parts.second) {
            (u64::MAX, _) => page.own[word] |= bit,
            (_, u64::MAX) => page.second[word] |= bit,
            _ => {
                page.mixed.insert(block % PAGE, parts);
            }
        }
    }
    pages
}

/// A run of parts by its blocks, with a bit for each part in it.
fn by_block(run: Range<usize>) -> impl Iterator<Item = (usize, u64)> {
    let blocks = run.start / PARTS..run.end.div_ceil(PARTS);
    blocks.map(move |block| {
        let first = run.start.saturating_sub(block * PARTS);
        let behind = (run.end - block * PARTS).min(PARTS);
        (block, u64::MAX >> (PARTS - (behind - first)) << first)
    })
}

/// Runs of parts with the leaf that their prefixes have, from the first to the
/// last without a gap, and parts within which another leaf is as well.
fn runs(entries: &[(Prefix, u32)]) -> (Vec<(Range<usize>, u32)>, Vec<usize>) {
    let mut runs = Vec::new();
    let mut mixed = Vec::new();
    // Prefixes that the next entry may lie in: where each ends, and its leaf.
    let mut around: Vec<(usize, u32)> = vec![(1 << PART_BITS, 0)];
    let mut done = 0;
    for (prefix, leaf) in entries {
        let part = (prefix.bits >> (128 - PART_BITS)) as usize;
        while let Some((end, outer)) = around.pop_if(|(end, _)| *end <= part) {
            runs.push((done..end, outer));
            done = end;
        }
        let outer = around.last().map_or(0, |(_, leaf)| *leaf);
        match PART_BITS.checked_sub(prefix.length.into()) {
            Some(wide) => {
                runs.push((done..part, outer));
                done = part;
                around.push((part + (1 << wide), *leaf));
            }
            None if *leaf != outer => mixed.push(part),
            None => {}
        }
    }
    while let Some((end, outer)) = around.pop() {
        runs.push((done..end, outer));
        done = end;
    }
    runs.retain(|(run, _)| !run.is_empty());
    (runs, mixed)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr};

    use kldtrace_abi::plane::{
        Address, Facts, Family,
        image::Plane,
        kind::{self, OWN, PAGE_CELLS, SECOND, USUAL},
    };
    use proptest::prelude::*;

    use super::*;
    use crate::planes::host::Host;

    /// An image of which no more than this is asked.
    struct Image {
        host: Host,
        plane: Plane,
        family: Family,
    }

    impl Image {
        /// For one family, besides another of the other.
        fn new(entries: &[(Prefix, u32)], v6: bool) -> Self {
            let mut cells = Writer(vec![Cell::default()]);
            // Not at the first, so that numbers are seen to be from there on.
            cells.items([Cell::default(); 3].map(|cell| cell.0[0]));
            let other = [v4([10, 0, 0, 0], 23, 1), v4([10, 0, 2, 0], 25, 2)];
            let families = if v6 {
                [&other, entries]
            } else {
                [entries, &other]
            };
            let [pages, groups] = Kinds::write(families.map(Kinds::new), &mut cells);
            Self {
                host: Host::new(cells.0),
                plane: Plane {
                    pages,
                    groups,
                    ..Plane::default()
                },
                family: if v6 { Family::V6 } else { Family::V4 },
            }
        }

        /// The kind of an address.
        fn says(&mut self, bits: u128) -> u64 {
            let facts = Facts {
                family: self.family,
                source: Address((bits >> 64) as u64, bits as u64),
                ..Facts::default()
            };
            kind::of(&mut self.host, &self.plane, &facts)
        }
    }

    /// Prefixes that lie close, around each other and on both sides of the
    /// lengths of a block and of a part.
    fn prefixes() -> impl Strategy<Value = Vec<(Prefix, u32)>> {
        let one = (0..4_u32, any::<u32>(), 0..=32_u8, 0..4_u32);
        prop::collection::btree_map(
            one.prop_map(|(near, far, length, leaf)| {
                let bits = near << 30 | far >> 8 & 0xfff << 10 | far & 0x3ff;
                (v4(bits.to_be_bytes(), length, leaf).0, leaf)
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
        /// All addresses that are said to be of a kind have one leaf, that of
        /// the longest prefix that they lie in; and those who are not have a
        /// part with another.
        #[test]
        fn addresses_of_a_kind_have_one_leaf(entries in prefixes(), v6: bool, asked in prop::collection::vec(any::<u32>(), 200)) {
            let mut image = Image::new(&entries, v6);
            let leaf = |bits: u128| {
                let within = entries.iter().filter(|(prefix, _)| (prefix.bits..=prefix.last()).contains(&bits));
                within.max_by_key(|(prefix, _)| prefix.length).map_or(0, |(_, leaf)| *leaf)
            };
            let ends = entries.iter().flat_map(|(prefix, _)| {
                [prefix.bits, prefix.last(), prefix.bits.wrapping_sub(1), prefix.last().wrapping_add(1)]
            });
            let asked = asked.iter().map(|bits| u128::from(*bits) << 96);
            let mut found = [OWN, SECOND, USUAL].map(|_| BTreeSet::new());
            let mut own = Vec::new();
            for bits in ends.chain(asked) {
                let kind = image.says(bits);
                found[kind as usize].insert(leaf(bits));
                if kind == OWN {
                    own.push(bits);
                }
            }
            let [_, second, usual] = found;
            prop_assert!(usual.len() <= 1 && second.len() <= 1, "{:?} {:?}", usual, second);
            prop_assert!(usual.is_disjoint(&second));
            for bits in own {
                let first = bits >> 100 << 100;
                let part: BTreeSet<u32> = (0..16).map(|end| leaf(first | end << 96)).collect();
                prop_assert!(part.len() > 1 || part.is_disjoint(&usual) && part.is_disjoint(&second));
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
        let mut image = Image::new(
            &[
                v4([0; 4], 0, 7),
                v4([10, 0, 0, 0], 8, 1),
                v4([12, 0, 0, 0], 16, 2),
            ],
            false,
        );
        assert_eq!(image.says(v4_bits([8, 8, 8, 8])), USUAL);
        assert_eq!(image.says(v4_bits([10, 255, 255, 255])), SECOND);
        assert_eq!(image.says(v4_bits([12, 0, 255, 255])), OWN);
        assert_eq!(image.says(v4_bits([11, 0, 0, 0])), USUAL);
    }

    /// As published lists have them: none as large as a block.
    #[test]
    fn small_networks_of_a_list_are_of_a_kind() {
        let mut image = Image::new(
            &[
                v4([64, 0, 2, 0], 24, 3),
                v4([64, 0, 3, 77], 32, 3),
                v4([65, 0, 0, 0], 24, 3),
                v4([66, 0, 0, 0], 26, 4),
            ],
            false,
        );
        for (address, kind) in [
            ([64, 0, 1, 255], USUAL),
            ([64, 0, 2, 0], SECOND),
            ([64, 0, 2, 255], SECOND),
            ([64, 0, 3, 63], USUAL),
            ([64, 0, 3, 64], OWN),
            ([64, 0, 3, 77], OWN),
            ([64, 0, 3, 80], USUAL),
            ([65, 0, 0, 255], SECOND),
            ([66, 0, 0, 63], OWN),
            ([66, 0, 0, 64], USUAL),
        ] {
            assert_eq!(image.says(v4_bits(address)), kind, "{address:?}");
        }
    }

    /// An image of a version without groups, and one without pages.
    #[test]
    fn what_nothing_is_said_of_is_told_apart() {
        let mut image = Image::new(&[v4([10, 0, 0, 0], 24, 1)], false);
        let [usual, second] = [[11, 0, 0, 0], [10, 0, 0, 1]].map(v4_bits);
        assert_eq!(
            [usual, second].map(|bits| image.says(bits)),
            [USUAL, SECOND]
        );
        image.plane.groups = [0; 2];
        assert_eq!([usual, second].map(|bits| image.says(bits)), [USUAL, OWN]);
        image.plane.pages = [0; 2];
        assert_eq!([usual, second].map(|bits| image.says(bits)), [OWN, OWN]);
    }

    #[test]
    fn bits_take_what_the_prefixes_need() {
        let few = Kinds::new(&[v4([10, 0, 0, 0], 24, 1), v4([224, 0, 0, 0], 4, 2)]);
        // One page without, one with one, and one of all.
        assert_eq!(few.cells.len() as u32, TOP_CELLS + 3 * PAGE_CELLS);
        assert_eq!(few.groups.len() as u32, 3 * GROUPS);
        assert_eq!(few.parts.len(), 1);
        let many = (0..100_000_u32).map(|number| v4((number * 42_949).to_be_bytes(), 32, 1));
        let many: Vec<_> = many.collect();
        let many = Kinds::new(&many);
        assert_eq!(many.parts.len(), 100_000);
        assert!(many.cells.len() as u32 <= TOP_CELLS + (1 << TOP_BITS) * PAGE_CELLS);
        assert!(many.groups.len() as u32 <= (1 << TOP_BITS) * GROUPS);
    }
}
