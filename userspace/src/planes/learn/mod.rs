//! Proposes rules from what audit would have dropped.
//!
//! What is seen is added up by service and by where it comes from, in bounded
//! memory. Ports, types and multicast groups stay as they were seen, source
//! ports are of no interest, and a source stands for its plane, unless that is
//! half the world: then for itself or, if it has many neighbours, its network.

mod group;
mod insert;
#[cfg(test)]
mod tests;
mod told;
mod write;

use std::collections::{BTreeMap, HashMap};

use kldtrace_abi::plane::{Action, Facts, Malformed, Outcome, Reason};
use serde::Serialize;

use self::group::{Group, Service, Source, Way};
pub use self::{
    insert::{insert, remarks},
    told::Passed,
};
use super::{explain, policy::Policy};

/// Groups that are kept: about 20 MiB.
const MOST: usize = 65_536;
/// Addresses that are kept of one service, before networks are.
const ADDRESSES: usize = 16;
/// Addresses and networks that are kept of one service.
const SOURCES: usize = 256;
/// Examples that are kept of each group.
const EXAMPLES: usize = 2;

/// What was seen of a group.
#[derive(Clone, Debug, Default)]
struct Tally {
    packets: u64,
    bytes: u64,
    /// Whether some of it begins something: of TCP a SYN.
    begins: bool,
    examples: Vec<String>,
}

/// What no rule is proposed for, and why.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// It is malformed.
    Malformed,
    /// It has no rules: neither IP nor ARP, or ICMP of the other family.
    NotIp,
    /// The plane takes no parts of datagrams.
    Fragment,
    /// Its source is on a block list.
    Blocked,
    /// Its source sends too many.
    Rate,
    /// A rule of the policy drops it.
    Rule,
    /// It goes between two planes that are both elsewhere.
    Elsewhere,
    /// There was no room to keep it.
    NoRoom,
}

impl Left {
    /// The reason for people.
    fn words(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotIp => "neither IP nor ARP, or ICMP of the other family",
            Self::Fragment => "parts of datagrams, of which the plane takes none",
            Self::Blocked => "from sources on a block list",
            Self::Rate => "from sources that send too many",
            Self::Rule => "dropped by a rule of the policy",
            Self::Elsewhere => "between two planes that are both elsewhere",
            Self::NoRoom => "of too many kinds to be kept",
        }
    }
}

/// Takes in what is seen under a policy.
pub struct Learner<'a> {
    policy: &'a Policy,
    groups: HashMap<Group, Tally>,
    /// Sources of each service.
    sources: HashMap<Service, usize>,
    left: BTreeMap<Left, u64>,
    seen: u64,
}

/// What is proposed.
#[derive(Clone, Debug, Serialize)]
pub struct Proposal {
    /// The rules, in the order of the planes.
    pub rules: Vec<Learned>,
    /// Packets that no rule is proposed for.
    pub left: BTreeMap<Left, u64>,
    /// Packets that were looked at.
    pub seen: u64,
}

/// A rule that is proposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// The plane that it is on; of what crosses, the one that it comes from.
    pub plane: String,
    /// The plane that it crosses to, and where it is accepted.
    pub cross: Option<(String, &'static str)>,
    /// Its name.
    pub name: String,
    /// Packets that it would have let pass.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// The rule with its comments, as TOML.
    pub toml: String,
}

impl<'a> Learner<'a> {
    /// Nothing was seen yet.
    pub fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            groups: HashMap::new(),
            sources: HashMap::new(),
            left: BTreeMap::new(),
            seen: 0,
        }
    }

    /// Takes in a packet that arrived on the plane of this place in the policy.
    /// `Ok`: a rule will be proposed that lets it pass. Nothing to do with one
    /// that passed.
    ///
    /// # Errors
    /// Why no rule will be.
    pub fn see(&mut self, plane: usize, facts: &Facts, outcome: &Outcome) -> Result<(), Left> {
        if outcome.action == Action::Pass {
            return Ok(());
        }
        self.seen += 1;
        let kept = self.keep(plane, facts, outcome.reason);
        if let Err(why) = kept {
            *self.left.entry(why).or_default() += 1;
        }
        kept
    }

    fn keep(&mut self, plane: usize, facts: &Facts, reason: Reason) -> Result<(), Left> {
        match reason {
            _ if facts.malformed != Malformed::No => return Err(Left::Malformed),
            Reason::Malformed => return Err(Left::Malformed),
            Reason::Fragment => return Err(Left::Fragment),
            Reason::Blocked => return Err(Left::Blocked),
            Reason::Rate => return Err(Left::Rate),
            Reason::Rule | Reason::Floor => return Err(Left::Rule),
            Reason::Default | Reason::Cross => {}
            _ => return Err(Left::NotIp),
        }
        let way = Way::of(self.policy, plane, facts).ok_or(Left::Elsewhere)?;
        let service = Service::of(way, facts).ok_or(Left::NotIp)?;
        let known = self.sources.get(&service).copied().unwrap_or(0);
        let from = |exact| Group {
            service: service.clone(),
            source: Source::of(self.policy, way.from, facts, exact),
        };
        let mut group = from(true);
        if !self.groups.contains_key(&group) && known >= ADDRESSES {
            group = from(false);
        }
        if !self.groups.contains_key(&group) {
            if self.groups.len() >= MOST || known >= SOURCES {
                return Err(Left::NoRoom);
            }
            self.sources.insert(service, known + 1);
        }
        let tally = self.groups.entry(group).or_default();
        tally.packets += 1;
        tally.bytes += u64::from(facts.length);
        tally.begins |= group::begins(facts);
        if tally.examples.len() < EXAMPLES {
            let example = explain::words(facts);
            if !tally.examples.contains(&example) {
                tally.examples.push(example);
            }
        }
        Ok(())
    }

    /// The rules that would have let pass all that was kept.
    pub fn propose(&self) -> Proposal {
        Proposal {
            rules: write::rules(self.policy, &self.groups),
            left: self.left.clone(),
            seen: self.seen,
        }
    }
}
