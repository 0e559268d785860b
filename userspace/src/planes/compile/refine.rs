//! Equivalence classes: what all selectors treat alike needs one number.

use std::{collections::HashMap, ops::Range};

/// Segments that all selectors together may cover, each as often as it is
/// covered: what a policy may cost in time and memory.
const MOST: usize = 32_000_000;

/// A partition of segments.
#[derive(Debug, Default, PartialEq)]
pub struct Classes {
    /// The class of each segment; 0: no selector covers it.
    pub of: Vec<u32>,
    /// The classes that each selector covers, ascending.
    pub covered: Vec<Vec<u32>>,
    /// Classes, 0 included.
    pub count: u32,
}

/// Divides segments into classes so that each selector covers whole classes.
/// A selector is the ranges of segments that it covers, disjoint. `None`: the
/// selectors cover more than a policy may.
pub fn refine(segments: usize, selectors: &[Vec<Range<usize>>]) -> Option<Classes> {
    let covered = |selector: &Vec<Range<usize>>| selector.iter().map(Range::len).sum::<usize>();
    if selectors.iter().map(covered).sum::<usize>() > MOST {
        return None;
    }
    // Starting from one class, each selector splits those that it covers in
    // part: those covered get a new number.
    let mut of = vec![0_u32; segments];
    let mut sizes = vec![segments];
    for selector in selectors {
        let mut inside: HashMap<u32, usize> = HashMap::new();
        for segment in selector.iter().cloned().flatten() {
            *inside.entry(of[segment]).or_default() += 1;
        }
        let mut split: HashMap<u32, u32> = HashMap::new();
        for (&class, &size) in &inside {
            // Class 0 stays that of what nothing covers.
            if class == 0 || size < sizes[class as usize] {
                sizes[class as usize] -= size;
                split.insert(class, u32::try_from(sizes.len()).ok()?);
                sizes.push(size);
            }
        }
        for segment in selector.iter().cloned().flatten() {
            if let Some(&new) = split.get(&of[segment]) {
                of[segment] = new;
            }
        }
    }
    Some(renumber(of, selectors))
}

/// Numbers without gaps, in the order of the segments, so that the same policy
/// always makes the same image.
fn renumber(mut of: Vec<u32>, selectors: &[Vec<Range<usize>>]) -> Classes {
    let mut numbers = HashMap::from([(0, 0)]);
    for class in &mut of {
        let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        *class = *numbers.entry(*class).or_insert(next);
    }
    let covered = selectors.iter().map(|selector| {
        let segments = selector.iter().cloned().flatten();
        let mut classes: Vec<u32> = segments.map(|segment| of[segment]).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    });
    Classes {
        covered: covered.collect(),
        count: u32::try_from(numbers.len()).unwrap_or(u32::MAX),
        of,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Two segments share a class exactly if the same selectors cover them.
        #[test]
        fn classes_are_what_selectors_tell_apart(
            cuts in prop::collection::vec(prop::collection::btree_set(0..40_usize, 0..8), 0..8)
        ) {
            let selectors: Vec<Vec<Range<usize>>> = cuts
                .iter()
                .map(|cuts| {
                    let cuts: Vec<_> = cuts.iter().copied().collect();
                    cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).collect()
                })
                .collect();
            let classes = refine(40, &selectors).unwrap();
            let mut seen = BTreeMap::new();
            for segment in 0..40 {
                let covering: BTreeSet<usize> = (0..selectors.len())
                    .filter(|n| selectors[*n].iter().any(|range| range.contains(&segment)))
                    .collect();
                let class = classes.of[segment];
                prop_assert!(class < classes.count);
                prop_assert_eq!(class == 0, covering.is_empty());
                for (number, covered) in classes.covered.iter().enumerate() {
                    prop_assert_eq!(covered.contains(&class), covering.contains(&number));
                }
                prop_assert_eq!(seen.entry(covering).or_insert(class), &class);
            }
        }
    }

    #[test]
    fn too_much_is_refused() {
        let wide: Vec<_> = (0..1000)
            .map(|_| {
                vec![Range {
                    start: 0,
                    end: 100_000,
                }]
            })
            .collect();
        assert_eq!(refine(100_000, &wide), None);
    }
}
