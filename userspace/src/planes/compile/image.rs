//! Lays a plan out in cells ([`kldtrace_abi::plane::image`] has the layout).

use kldtrace_abi::plane::{
    Cell, Rate, Reason,
    image::{
        Content, Domain, ENFORCE, Header, LIMITS, Limits, Listed, OTHER_FRAMES, PLANE_CELLS,
        PLANES, Plane, Rule, WHOLE_ONLY, WIREGUARD,
    },
};

use super::{Plan, Source, TooLarge, kind::Kinds, table::Table, trie::Tries};
use crate::planes::policy::{self, Policy};

/// A policy as the kernel has it.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The image.
    pub cells: Vec<Cell>,
    /// What its rules are: number `n` of a verdict is here at `n - 1`.
    pub rules: Vec<Told>,
}

/// A rule as people know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The plane whose packets it judges.
    pub on: String,
    /// The plane, or two as in `workload > storage`; with a block list the
    /// plane that has it.
    pub place: String,
    /// Its name; of a default none, of a block list that of the set.
    pub name: String,
    /// Its line in the policy.
    pub line: usize,
    /// What it is.
    pub reason: Reason,
    /// Where the kernel counts it: by its number, until [`Compiled::recount`]
    /// gives it the place that it keeps.
    pub counter: u32,
}

impl Compiled {
    /// What a verdict's rule is; `None`: the verdict has none.
    pub fn rule(&self, number: u32) -> Option<&Told> {
        self.rules
            .get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// Has each rule counted where `place` says.
    pub fn recount(&mut self, mut place: impl FnMut(&Told) -> u32) {
        const EACH: usize = 64 / size_of::<Rule>();
        let first = self.cells[0].at::<Header>(0).rules as usize;
        for (number, told) in (1..).zip(&mut self.rules) {
            told.counter = place(told);
            let rule: &mut Rule = self.cells[first + number / EACH].at_mut(number as u32);
            rule.counter = told.counter;
        }
    }
}

/// Compiles a policy. `generation` tells it from others: not 0, and none that
/// another policy has had since the maps were made.
///
/// # Errors
/// For a policy whose rules overlap in more ways than an image can hold.
pub fn image(policy: &Policy, generation: u32) -> Result<Compiled, TooLarge> {
    let source = Source::new(policy);
    let plan = source.plan()?;
    Ok(plan.image(generation))
}

/// Cells on their way.
#[derive(Default)]
pub(super) struct Writer(pub Vec<Cell>);

impl Writer {
    /// The number of the next cell.
    pub fn next(&self) -> u32 {
        self.0.len() as u32
    }

    /// Adds items, and says where they begin.
    pub fn items<T: Content>(&mut self, items: impl IntoIterator<Item = T>) -> u32 {
        let first = self.next();
        let each = (64 / size_of::<T>()) as u32;
        for (place, item) in items.into_iter().enumerate() {
            if (place as u32).is_multiple_of(each) {
                self.0.push(Cell::default());
            }
            if let Some(cell) = self.0.last_mut() {
                *cell.at_mut(place as u32) = item;
            }
        }
        first
    }
}

impl Plan<'_> {
    /// Writes the image.
    fn image(&self, generation: u32) -> Compiled {
        let table = Table::new(&self.keys);
        let mut tries = Tries::new();
        for addresses in [&self.sources, &self.destinations] {
            tries.add(addresses.family(false));
            tries.add(addresses.family(true));
        }
        let mut cells = Writer(vec![Cell::default(); PLANE_CELLS]);
        // What most packets ask for comes first (`image::CHUNK`).
        let domains = cells.items(std::iter::once(Domain::default()).chain(self.domain_cells()));
        let classes = cells.items(self.listed_cells());
        let kinds = [false, true].map(|v6| Kinds::new(self.sources.family(v6)));
        let [pages, groups] = Kinds::write(kinds, &mut cells);
        let header = Header {
            generation,
            domains,
            classes,
            services: cells.items(self.services.entries.iter().copied()),
            roots: cells.items(tries.roots),
            rules: cells.items(std::iter::once(Rule::default()).chain(self.rule_cells())),
            nodes: cells.items(tries.nodes),
            leaves: cells.items(tries.leaves),
            buckets: table.buckets.len() as u32,
            seed: table.seed,
            table: cells.items(table.buckets),
            cells: cells.next(),
            unused: [0; 3],
        };
        let mut cells = cells.0;
        *cells[0].at_mut(0) = header;
        for (place, plane) in self.policy.planes.iter().enumerate() {
            let number = usize::from(plane.number);
            *cells[number].at_mut(0) = Plane {
                pages,
                groups,
                ..self.plane_cell(place, plane, generation)
            };
            *cells[PLANES + 1 + number].at_mut(0) = Limits {
                first: plane.rate,
                syn: plane.syn_rate,
                ..Limits::default()
            };
        }
        let rules = self.rules.iter().enumerate().map(|(place, rule)| Told {
            on: self.policy.planes[self.plane_of(place)].name.clone(),
            place: self.place_name(place),
            name: rule.name.to_owned(),
            line: rule.line,
            reason: rule.reason,
            counter: place as u32 + 1,
        });
        Compiled {
            rules: rules.collect(),
            cells,
        }
    }

    /// The plane that a rule is on.
    fn plane_of(&self, rule: usize) -> usize {
        let mut blocks = self.blocks.iter();
        let blocked = blocks.find(|block| block.2 as usize == rule + 1);
        blocked.map_or_else(
            || self.domains[usize::from(self.rules[rule].domain) - 1].on,
            |block| block.0,
        )
    }

    /// Where a rule is, in words.
    pub(super) fn place_name(&self, rule: usize) -> String {
        let name = |plane: usize| self.policy.planes[plane].name.as_str();
        let domain = usize::from(self.rules[rule].domain);
        // Block lists have none.
        let place = domain.checked_sub(1).map(|domain| self.domains[domain]);
        match place {
            Some(place) if place.from != place.to => {
                format!("{} > {}", name(place.from), name(place.to))
            }
            _ => name(self.plane_of(rule)).to_owned(),
        }
    }

    fn plane_cell(&self, on: usize, plane: &policy::Plane, generation: u32) -> Plane {
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let mut cell = Plane {
            flags: flag(plane.enforce, ENFORCE)
                | flag(plane.whole_only, WHOLE_ONLY)
                | flag(plane.other_frames, OTHER_FRAMES)
                | flag(plane.rate.limits() || plane.syn_rate.limits(), LIMITS)
                | flag(plane.wireguard.is_some(), WIREGUARD),
            always: plane.always.iter().fold(0, |bits, one| bits | *one as u8),
            generation,
            ..Plane::default()
        };
        let ports = plane.wireguard.iter().flat_map(|guard| &guard.ports);
        for (place, port) in cell.wireguard.iter_mut().zip(ports) {
            *place = *port;
        }
        let number = |place: usize| usize::from(self.policy.planes[place].number);
        for (domain, found) in (1..).zip(&self.domains) {
            if found.on != on {
                continue;
            }
            if found.from == found.to {
                cell.own = domain;
            } else if found.from == on {
                cell.to[number(found.to)] = domain;
            } else {
                cell.from[number(found.from)] = domain;
            }
        }
        cell
    }

    fn domain_cells(&self) -> impl Iterator<Item = Domain> {
        self.forms.iter().zip(1_u8..).map(|(forms, domain)| {
            let last = self.rules.iter().rposition(|rule| rule.domain == domain);
            Domain {
                forms: *forms,
                default: last.map_or(0, |place| place as u32 + 1),
                unused: [0; 14],
            }
        })
    }

    fn rule_cells(&self) -> impl Iterator<Item = Rule> {
        self.rules.iter().zip(1..).map(|(placed, number)| Rule {
            pass: placed.pass.into(),
            reason: placed.reason as u8,
            initiations: placed.rule.is_some_and(|rule| rule.initiations).into(),
            counter: number,
            rate: placed.rule.map_or(Rate::default(), |rule| rule.rate),
            ..Rule::default()
        })
    }

    /// What is on block lists, by class; class 0 is on none.
    fn listed_cells(&self) -> Vec<Listed> {
        let mut cells = vec![Listed::default()];
        let floor = self
            .rules
            .iter()
            .position(|rule| rule.reason == Reason::Floor);
        let floor_sources = floor.map(|place| self.classes(place)[0]);
        let floor_plane = self.policy.floor.as_ref().map(|floor| floor.plane);
        for (plane, selector, rule) in &self.blocks {
            for class in &self.sources.covered[*selector] {
                let class = *class as usize;
                if cells.len() <= class {
                    cells.resize(class + 1, Listed::default());
                }
                let spared = floor_plane == Some(*plane)
                    && floor_sources.is_some_and(|spared| spared.contains(&(class as u32)));
                let number = usize::from(self.policy.planes[*plane].number);
                let slot = &mut cells[class].rules[number];
                if *slot == 0 && !spared {
                    *slot = *rule;
                }
            }
        }
        cells
    }
}
