//! What numbers in the kernel are called: the policy that is applied.

use std::{collections::HashMap, sync::Arc};

use crate::planes::{
    numbers::RuleName,
    policy::Policy,
    roots::Roots,
    saved::Saved,
    state::{Applied, State},
};

/// Names of planes and rules.
#[derive(Clone, Debug, Default)]
pub struct Named {
    /// The policy that is applied, by its generation; 0: none.
    pub generation: u32,
    /// When it was applied, in seconds since 1970.
    pub applied: u64,
    /// Whether everything passes, by `panic-open`.
    pub opened: bool,
    /// The planes of the policy, without prefixes and rules.
    pub policy: Policy,
    /// Names of planes by their numbers.
    planes: HashMap<u8, Arc<str>>,
    /// Rules by where they are counted: the plane, and the rule's name in
    /// labels.
    rules: HashMap<u32, Rule>,
}

/// A rule as labels have it.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The plane whose packets it judges.
    pub plane: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// `rule`, `floor`, `default` or `blocked`.
    pub kind: String,
}

impl Named {
    /// Reads the policy, if another is applied now.
    ///
    /// # Errors
    /// For a policy or state that cannot be read.
    pub fn follow(&mut self, roots: &Roots) -> anyhow::Result<()> {
        let state = State::load(roots)?;
        self.opened = state.opened.is_some();
        let Some(Applied { generation, by, .. }) = &state.current else {
            *self = Self {
                opened: self.opened,
                ..Self::default()
            };
            return Ok(());
        };
        if *generation == self.generation {
            return Ok(());
        }
        let Saved {
            mut policy,
            numbers,
            ..
        } = Saved::load(roots, *generation)?;
        // Only the planes themselves are of interest, and prefixes may be many.
        policy.sets = Vec::new();
        policy.crosses = Vec::new();
        for plane in &mut policy.planes {
            plane.prefixes = Vec::new();
            plane.rules = Vec::new();
        }
        let planes = numbers.all_planes();
        let rules = numbers.all_rules();
        *self = Self {
            generation: *generation,
            applied: by.at,
            opened: self.opened,
            planes: planes.map(|(name, number)| (number, name.into())).collect(),
            rules: rules.map(|(name, counter)| (counter, rule(name))).collect(),
            policy,
        };
        Ok(())
    }

    /// The name of a plane.
    pub fn plane(&self, number: u8) -> Arc<str> {
        let known = self.planes.get(&number).cloned();
        known.unwrap_or_else(|| format!("plane {number}").into())
    }

    /// The rule that is counted in a place; `None`: it is none's, or another
    /// policy's.
    pub fn rule(&self, counter: u32) -> Option<&Rule> {
        self.rules.get(&counter)
    }

    /// All rules with their places, in order.
    pub fn rules(&self) -> Vec<(u32, &Rule)> {
        let mut rules: Vec<_> = self.rules.iter().map(|(at, rule)| (*at, rule)).collect();
        rules.sort_by_key(|(at, _)| *at);
        rules
    }
}

/// The name of a rule in labels: what people have not named themselves stands
/// in brackets, and of what crosses the way comes first.
fn rule(name: &RuleName) -> Rule {
    let own = match &name.kind[..] {
        "rule" => name.name.clone(),
        "blocked" => format!("@{}", name.name),
        kind => format!("({kind})"),
    };
    let full = if name.place == name.on {
        own
    } else {
        format!("{}: {own}", name.place)
    };
    Rule {
        plane: name.on.as_str().into(),
        name: full.as_str().into(),
        kind: name.kind.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_names_that_tell_them_apart() {
        let named = |place: &str, kind: &str, name: &str| {
            let name = RuleName {
                on: "storage".to_owned(),
                place: place.to_owned(),
                kind: kind.to_owned(),
                name: name.to_owned(),
            };
            rule(&name).name.to_string()
        };
        assert_eq!(named("storage", "rule", "nfs"), "nfs");
        assert_eq!(named("storage", "default", ""), "(default)");
        assert_eq!(named("storage", "floor", "floor"), "(floor)");
        assert_eq!(named("storage", "blocked", "bogons"), "@bogons");
        let cross = "workload > storage";
        assert_eq!(named(cross, "rule", "nfs"), "workload > storage: nfs");
        assert_eq!(named(cross, "default", ""), "workload > storage: (default)");
    }
}
