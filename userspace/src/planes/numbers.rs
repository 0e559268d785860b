//! Numbers that planes and rules keep from policy to policy, by their names:
//! what is counted of one is never shown as another's.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::{
    compile::{Compiled, image::Told},
    policy::{MAX_PLANES, MAX_RULES, Policy},
};

/// Places that rules, defaults and block lists of a policy can have: rules are
/// at most [`MAX_RULES`], each on at most two planes, and defaults and lists
/// few beside them.
pub const MAX_PLACES: u32 = 4 * MAX_RULES as u32;

/// What tells a rule from all others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleName {
    /// The plane whose packets it judges.
    pub on: String,
    /// That plane, or two as in `workload > storage`.
    pub place: String,
    /// `rule`, `floor`, `default` or `blocked`.
    pub kind: String,
    /// Its name; of a default none.
    pub name: String,
}

impl RuleName {
    /// That of a rule in an image.
    pub fn of(told: &Told) -> Self {
        Self {
            on: told.on.clone(),
            place: told.place.clone(),
            kind: told.reason.as_str().to_owned(),
            name: told.name.clone(),
        }
    }
}

/// A rule, and where the kernel counts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    #[serde(flatten)]
    rule: RuleName,
    counter: u32,
}

/// The numbers of one policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Numbers {
    planes: BTreeMap<String, u8>,
    rules: BTreeMap<RuleName, u32>,
}

/// The same in a file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    planes: BTreeMap<String, u8>,
    rules: Vec<Counted>,
}

impl From<Numbers> for Written {
    fn from(numbers: Numbers) -> Self {
        let rules = numbers.rules.into_iter();
        Self {
            planes: numbers.planes,
            rules: rules
                .map(|(rule, counter)| Counted { rule, counter })
                .collect(),
        }
    }
}

impl TryFrom<Written> for Numbers {
    type Error = String;

    /// Takes numbers that are within their ranges, and each for one name.
    fn try_from(written: Written) -> Result<Self, String> {
        let mut used = BTreeSet::new();
        for (name, number) in &written.planes {
            if !(1..=MAX_PLANES).contains(&usize::from(*number)) || !used.insert(*number) {
                return Err(format!("number {number} of plane {name:?}"));
            }
        }
        let mut used = BTreeSet::new();
        let mut rules = BTreeMap::new();
        for Counted { rule, counter } in written.rules {
            if !(1..=MAX_PLACES).contains(&counter) || !used.insert(counter) {
                return Err(format!("counter {counter} of rule {:?}", rule.name));
            }
            if let Some(other) = rules.insert(rule, counter) {
                return Err(format!("a rule with counters {counter} and {other}"));
            }
        }
        Ok(Self {
            planes: written.planes,
            rules,
        })
    }
}

impl Numbers {
    /// Gives a policy its planes' numbers: those that they have in one of
    /// `kept`, which are the policies that may still be returned to, the
    /// first that has them deciding; else free ones. Says which are fresh:
    /// what was counted there is another's.
    ///
    /// # Errors
    /// When these policies have more than [`MAX_PLANES`] planes together.
    pub fn planes(policy: &mut Policy, kept: &[&Self]) -> anyhow::Result<(Self, Vec<u8>)> {
        let mut taken: BTreeSet<u8> = kept
            .iter()
            .flat_map(|numbers| numbers.planes.values().copied())
            .collect();
        let mut numbers = Self::default();
        let mut fresh = Vec::new();
        for plane in &mut policy.planes {
            let known = kept.iter().find_map(|kept| kept.planes.get(&plane.name));
            let free = || (1..=MAX_PLANES as u8).find(|number| !taken.contains(number));
            plane.number = known.copied().or_else(free).with_context(|| {
                format!(
                    "plane {:?}: no number is free: this policy and those that can be returned \
                     to have more than {MAX_PLANES} planes together; `kldtrace planes confirm` \
                     or apply one with fewer first",
                    plane.name
                )
            })?;
            if known.is_none() {
                fresh.push(plane.number);
            }
            taken.insert(plane.number);
            numbers.planes.insert(plane.name.clone(), plane.number);
        }
        Ok((numbers, fresh))
    }

    /// Gives the rules of an image their counters, in the same way, and says
    /// which are fresh.
    ///
    /// # Errors
    /// For more than [`MAX_PLACES`].
    pub fn rules(&mut self, compiled: &mut Compiled, kept: &[&Self]) -> anyhow::Result<Vec<u32>> {
        let taken: BTreeSet<u32> = kept
            .iter()
            .flat_map(|numbers| numbers.rules.values().copied())
            .collect();
        let mut free = (1..).filter(|counter| !taken.contains(counter));
        let mut fresh = Vec::new();
        compiled.recount(|told| {
            let name = RuleName::of(told);
            // A plane may name a block list twice.
            let known = self.rules.get(&name).copied();
            let known =
                known.or_else(|| kept.iter().find_map(|kept| kept.rules.get(&name)).copied());
            let counter = known.or_else(|| {
                let counter = free.next()?;
                fresh.push(counter);
                Some(counter)
            });
            let counter = counter.unwrap_or(0);
            self.rules.insert(name, counter);
            counter
        });
        ensure!(
            self.most() <= MAX_PLACES,
            "rules of this policy and those that can be returned to are more than {MAX_PLACES}"
        );
        Ok(fresh)
    }

    /// Gives a policy and its image the numbers that they had.
    ///
    /// # Errors
    /// For a plane or rule that had none: the policy is another one.
    pub fn again(&self, policy: &mut Policy) -> anyhow::Result<()> {
        for plane in &mut policy.planes {
            let number = self.planes.get(&plane.name);
            plane.number =
                *number.with_context(|| format!("plane {:?} has no number", plane.name))?;
        }
        Ok(())
    }

    /// The same for its image.
    ///
    /// # Errors
    /// As [`Self::again`].
    pub fn again_in(&self, compiled: &mut Compiled) -> anyhow::Result<()> {
        let mut strange = None;
        compiled.recount(|told| {
            let name = RuleName::of(told);
            let counter = self.rules.get(&name).copied();
            counter.unwrap_or_else(|| {
                strange = Some(name);
                0
            })
        });
        match strange {
            None => Ok(()),
            Some(RuleName { place, name, .. }) => {
                anyhow::bail!("rule {name:?} of {place} has no counter")
            }
        }
    }

    /// Planes and their numbers.
    pub fn all_planes(&self) -> impl Iterator<Item = (&str, u8)> {
        self.planes
            .iter()
            .map(|(name, number)| (name.as_str(), *number))
    }

    /// Rules and their counters.
    pub fn all_rules(&self) -> impl Iterator<Item = (&RuleName, u32)> {
        self.rules.iter().map(|(name, counter)| (name, *counter))
    }

    /// The number of a plane.
    pub fn plane(&self, name: &str) -> Option<u8> {
        self.planes.get(name).copied()
    }

    /// The highest counter.
    pub fn most(&self) -> u32 {
        self.rules.values().copied().max().unwrap_or(0)
    }
}
