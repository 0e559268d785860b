//! From a policy to its image ([`kldtrace_abi::plane`] says what that is).

mod addresses;
pub mod image;
mod kind;
mod reach;
mod refine;
mod services;
mod table;
mod trie;

use std::collections::HashMap;

use kldtrace_abi::plane::{Reason, table::Classes};

use self::{addresses::Addresses, services::Services};
use super::policy::{Floor, Narrow, Policy, Prefix, Rule, Service};

pub use self::{
    image::{Compiled, image},
    reach::{Unreached, unreached},
    services::{ICMP, ICMPV6, TCP, UDP},
};

/// Keys that the table of rules may have.
const MOST_KEYS: usize = 4_000_000;
/// Keys that rules may cover, each as often as it is covered.
const MOST_COVERED: usize = 64_000_000;

/// Why a policy cannot be compiled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// Too many classes of addresses.
    #[error("its prefixes overlap in too many ways: put those that go together into a set")]
    Addresses,
    /// Too many classes of services.
    #[error("ports and protocols of its rules overlap in too many ways: split wide ranges less")]
    Services,
    /// Too many pairs of planes with rules for what crosses.
    #[error("more than 255 kinds of traffic within and between planes")]
    Domains,
    /// A rule covers too many combinations.
    #[error(
        "line {line}: rule {name:?}: sources, destinations and ports of it and of other rules \
         overlap in more than {MOST_KEYS} ways: leave one of the three out, or split it"
    )]
    Keys {
        /// Its name.
        name: String,
        /// Its line.
        line: usize,
    },
}

/// Where rules are tried: a plane, or a crossing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The plane that packets arrive on: an index into [`Policy::planes`].
    pub on: usize,
    /// The plane that they come from.
    pub from: usize,
    /// The plane that they go to.
    pub to: usize,
}

/// A rule at its place.
#[derive(Clone, Debug)]
pub struct Placed<'a> {
    /// The number of its domain.
    pub domain: u8,
    /// What it is.
    pub reason: Reason,
    /// The rule; `None`: a plane's default, or a block list.
    pub rule: Option<&'a Rule>,
    /// Its name: of a default none, of a block list that of the set.
    pub name: &'a str,
    /// Its line in the file.
    pub line: usize,
    /// Whether it lets pass.
    pub pass: bool,
}

/// A policy in classes: all that its image is made from.
pub struct Plan<'a> {
    policy: &'a Policy,
    /// Domains: number `n` is here at `n - 1`.
    domains: Vec<Place>,
    /// Rules: number `n` is here at `n - 1`. Those of a domain stand together,
    /// in the order in which they are tried, its default last.
    rules: Vec<Placed<'a>>,
    /// What rules ask for, in classes, by the same index.
    covers: Vec<Covers>,
    /// Block lists: plane, selector of sources, rule.
    blocks: Vec<(usize, usize, u32)>,
    sources: Addresses,
    destinations: Addresses,
    services: Services,
    /// The rules by key.
    keys: HashMap<u64, u32>,
    /// Forms of keys that each domain has, by the same index.
    forms: Vec<u32>,
}

/// Selectors of a rule; `None`: any.
#[derive(Clone, Copy, Debug, Default)]
struct Covers {
    source: Option<usize>,
    destination: Option<usize>,
    service: usize,
    narrow: bool,
}

/// The floor as a rule.
pub(super) fn floor_rule(floor: &Floor) -> Rule {
    Rule {
        name: "floor".to_owned(),
        line: floor.line,
        pass: true,
        sources: Some(floor.sources.clone()),
        destinations: None,
        service: Service {
            protocols: vec![TCP],
            narrow: Narrow::Ports(floor.ports.clone()),
        },
        ..Rule::default()
    }
}

/// A policy with what compiling adds to it. Keeps the rule of the floor, which
/// the others are borrowed beside.
pub struct Source<'a> {
    policy: &'a Policy,
    floor: Option<Rule>,
    /// What defaults and block lists are for.
    any: Service,
}

impl<'a> Source<'a> {
    /// Prepares a policy.
    pub fn new(policy: &'a Policy) -> Self {
        Self {
            policy,
            floor: policy.floor.as_ref().map(floor_rule),
            any: Service::default(),
        }
    }

    /// Finds the classes.
    ///
    /// # Errors
    /// For a policy whose rules overlap in more ways than an image can hold.
    pub fn plan(&'a self) -> Result<Plan<'a>, TooLarge> {
        let policy = self.policy;
        let (domains, rules) = self.placed()?;
        let mut sources = addresses::Selectors::default();
        let mut destinations = addresses::Selectors::default();
        let mut asked = services::Selectors::default();
        let list = |prefixes: &'a Option<Vec<Prefix>>| prefixes.as_deref();
        let covers = rules.iter().map(|placed| match placed.rule {
            Some(rule) => Covers {
                source: list(&rule.sources).map(|list| sources.number(list)),
                destination: list(&rule.destinations).map(|list| destinations.number(list)),
                service: asked.number(&rule.service),
                narrow: rule.service.narrow != Narrow::All,
            },
            None => Covers {
                service: asked.number(&self.any),
                ..Covers::default()
            },
        });
        let covers: Vec<_> = covers.collect();
        let mut blocks = Vec::new();
        let mut rules = rules;
        for (plane, set) in self.blocked() {
            let number = sources.number(&policy.sets[set].prefixes);
            rules.push(Placed {
                domain: 0,
                reason: Reason::Blocked,
                rule: None,
                name: &policy.sets[set].name,
                line: policy.sets[set].line,
                pass: false,
            });
            blocks.push((plane, number, rules.len() as u32));
        }
        let listed: Vec<_> = blocks.iter().map(|(_, selector, _)| *selector).collect();
        let sources = Addresses::new(policy, &sources, &listed)?;
        let destinations = Addresses::new(policy, &destinations, &[])?;
        let services = Services::new(&asked)?;
        let mut plan = Plan {
            policy,
            forms: vec![0; domains.len()],
            domains,
            rules,
            covers,
            blocks,
            sources,
            destinations,
            services,
            keys: HashMap::new(),
        };
        plan.fill()?;
        Ok(plan)
    }

    /// Block lists of planes, in order: the first that has an address counts.
    fn blocked(&self) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let planes = self.policy.planes.iter().enumerate();
        planes.flat_map(|(number, plane)| plane.block.iter().map(move |set| (number, *set)))
    }

    /// All rules at their places.
    fn placed(&'a self) -> Result<(Vec<Place>, Vec<Placed<'a>>), TooLarge> {
        let policy = self.policy;
        let mut domains = Vec::new();
        let mut placed = Vec::new();
        for (on, plane) in policy.planes.iter().enumerate() {
            domains.push(Place {
                on,
                from: on,
                to: on,
            });
            let floor = policy.floor.as_ref().filter(|floor| floor.plane == on);
            let floor = floor.and(self.floor.as_ref());
            let floor = floor.into_iter().map(|rule| (rule, Reason::Floor));
            let wireguard = plane.wireguard.iter().map(|guard| &guard.rule);
            let rules = wireguard.chain(&plane.rules);
            let rules = rules.map(|rule| (rule, Reason::Rule));
            let domain = u8::try_from(domains.len()).map_err(|_| TooLarge::Domains)?;
            placed.extend(
                floor
                    .chain(rules)
                    .map(|(rule, reason)| at(domain, rule, reason)),
            );
            placed.push(default(domain, plane.pass, plane.line));
        }
        let mut sides: Vec<Place> = Vec::new();
        for cross in &policy.crosses {
            let (from, to) = (cross.from, cross.to);
            let sides_of = [(cross.at_from, from), (cross.at_to, to)];
            for (_, on) in sides_of.iter().filter(|(accepted, _)| *accepted) {
                let place = Place { on: *on, from, to };
                if !sides.contains(&place) {
                    sides.push(place);
                }
            }
        }
        for place in sides {
            domains.push(place);
            let domain = u8::try_from(domains.len()).map_err(|_| TooLarge::Domains)?;
            let here = policy.crosses.iter().filter(|cross| {
                let accepted = if place.on == place.from {
                    cross.at_from
                } else {
                    cross.at_to
                };
                accepted && (cross.from, cross.to) == (place.from, place.to)
            });
            placed.extend(here.map(|cross| at(domain, &cross.rule, Reason::Rule)));
            placed.push(default(domain, false, policy.planes[place.on].line));
        }
        Ok((domains, placed))
    }
}

fn at(domain: u8, rule: &Rule, reason: Reason) -> Placed<'_> {
    Placed {
        domain,
        reason,
        rule: Some(rule),
        name: &rule.name,
        line: rule.line,
        pass: rule.pass,
    }
}

fn default(domain: u8, pass: bool, line: usize) -> Placed<'static> {
    Placed {
        domain,
        reason: Reason::Default,
        rule: None,
        name: "",
        line,
        pass,
    }
}

impl Plan<'_> {
    /// The classes that a rule covers; of what it does not ask for, 0.
    fn classes(&self, rule: usize) -> [&[u32]; 3] {
        const ANY: &[u32] = &[0];
        let covers = &self.covers[rule];
        [
            covers
                .source
                .map_or(ANY, |selector| &self.sources.covered[selector]),
            covers
                .destination
                .map_or(ANY, |selector| &self.destinations.covered[selector]),
            &self.services.covered[covers.service],
        ]
    }

    /// Which form its keys have.
    fn form(&self, rule: usize) -> u32 {
        let covers = &self.covers[rule];
        u32::from(covers.source.is_some())
            | u32::from(covers.destination.is_some()) << 1
            | u32::from(covers.narrow) << 2
    }

    /// Stores each rule under all keys that it covers, the first one winning.
    fn fill(&mut self) -> Result<(), TooLarge> {
        let mut keys = HashMap::new();
        let mut visited = 0;
        for (place, placed) in self.rules.iter().enumerate() {
            let Some(rule) = placed.rule else { continue };
            let too_large = || TooLarge::Keys {
                name: rule.name.clone(),
                line: rule.line,
            };
            let form = self.form(place);
            let [sources, destinations, services] = self.classes(place);
            visited += sources.len() * destinations.len() * services.len();
            if visited > MOST_COVERED {
                return Err(too_large());
            }
            for source in sources {
                for destination in destinations {
                    for service in services {
                        let classes = Classes {
                            domain: placed.domain,
                            source: *source,
                            destination: *destination,
                            service: *service,
                            protocol: *service,
                        };
                        keys.entry(classes.key(form)).or_insert(place as u32 + 1);
                    }
                }
                if keys.len() > MOST_KEYS {
                    return Err(too_large());
                }
            }
            self.forms[usize::from(placed.domain) - 1] |= 1 << form;
        }
        self.keys = keys;
        Ok(())
    }
}
