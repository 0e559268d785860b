//! Which rules no packet reaches.

use std::collections::BTreeSet;

use kldtrace_abi::plane::{Reason, table::Classes};

use super::{Plan, Source, TooLarge};
use crate::planes::policy::Policy;

/// Combinations of classes that are looked at for one rule before it counts as
/// reached.
const MOST: usize = 200_000;
/// The same for all rules together.
const MOST_TOGETHER: usize = 20_000_000;

/// A rule that never decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreached {
    /// Where it is, as verdicts name it.
    pub place: String,
    /// Its name.
    pub name: String,
    /// Its line.
    pub line: usize,
    /// Name and line of those that decide in its place.
    pub by: Vec<(String, usize)>,
}

/// Rules of a policy that no packet reaches, as rules before them match all
/// that they match. Of a rule with very many combinations of addresses and
/// ports not all are looked at: one that is named is surely not reached.
///
/// # Errors
/// For a policy whose rules overlap in more ways than an image can hold.
pub fn unreached(policy: &Policy) -> Result<Vec<Unreached>, TooLarge> {
    let source = Source::new(policy);
    let plan = source.plan()?;
    let mut left = MOST_TOGETHER;
    let rules = plan.rules.iter().enumerate();
    let named = rules.filter(|(_, placed)| placed.reason == Reason::Rule);
    let found = named.filter_map(|(place, placed)| {
        let by = plan.hidden_by(place, &mut left)?;
        let told = by.iter().map(|number| {
            let other = &plan.rules[*number as usize - 1];
            (other.name.to_owned(), other.line)
        });
        Some(Unreached {
            place: plan.place_name(place),
            name: placed.name.to_owned(),
            line: placed.line,
            by: told.collect(),
        })
    });
    Ok(found.collect())
}

impl Plan<'_> {
    /// The rules that match in a rule's place wherever it matches; `None`: it
    /// is reached, or there was too much to look at.
    fn hidden_by(&self, place: usize, left: &mut usize) -> Option<BTreeSet<u32>> {
        let covers = &self.covers[place];
        let [sources, destinations, services] = self.classes(place);
        let every = |count: u32| (0..count).collect::<Vec<u32>>();
        let sources = match covers.source {
            Some(_) => sources.to_vec(),
            None => every(self.sources.count),
        };
        let destinations = match covers.destination {
            Some(_) => destinations.to_vec(),
            None => every(self.destinations.count),
        };
        let pairs = &self.services.pairs;
        let pairs: Vec<_> = if covers.narrow {
            // They are sorted by class: not all are looked at for each rule.
            let of = |class: &u32| {
                let from = pairs.partition_point(|(one, ..)| one < class);
                let here = pairs[from..].partition_point(|(one, ..)| one <= class);
                &pairs[from..from + here]
            };
            services.iter().flat_map(of).collect()
        } else {
            let of = |(_, protocol, _): &&(u32, u32, u8)| services.binary_search(protocol).is_ok();
            pairs.iter().filter(of).collect()
        };
        let mut by = BTreeSet::new();
        let mut here = MOST.min(*left);
        for source in &sources {
            for destination in &destinations {
                for (class, protocol, families) in &pairs {
                    let possible = families
                        & self.sources.families[*source as usize]
                        & self.destinations.families[*destination as usize];
                    if possible == 0 {
                        continue;
                    }
                    here = here.checked_sub(1)?;
                    *left -= 1;
                    let first = self.first(&Classes {
                        domain: self.rules[place].domain,
                        source: *source,
                        destination: *destination,
                        service: *class,
                        protocol: *protocol,
                    });
                    if first == Some(place as u32 + 1) {
                        return None;
                    }
                    by.extend(first);
                }
            }
        }
        Some(by)
    }

    /// The first rule that matches.
    fn first(&self, classes: &Classes) -> Option<u32> {
        let forms = self.forms[usize::from(classes.domain) - 1];
        let forms = (0..8).filter(|form| forms >> form & 1 != 0);
        let rules = forms.filter_map(|form| self.keys.get(&classes.key(form)));
        rules.min().copied()
    }
}
