//! What `nft -j -n list ruleset` prints (libnftables-json(5)).

use std::collections::{BTreeSet, HashMap};

use serde_json::Value as Json;

use super::{
    field::Hook,
    set::{Item, Set},
    statement::{Statement, Verdict, implied, pair, read as statement},
};

/// Tables, chains and sets of nftables.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// Chains by family, table and name.
    chains: HashMap<Key, Chain>,
    /// Those that the kernel enters by itself, in its order.
    pub base: Vec<Base>,
    sets: HashMap<Key, Set>,
    maps: HashMap<Key, Vec<(Item, Verdict)>>,
    /// Numbers at which some rule begins to say something else.
    pub numbers: BTreeSet<u64>,
    /// The same for addresses of IPv4 and of IPv6.
    pub addresses: [BTreeSet<u128>; 2],
}

/// Family, table, and a name in it.
type Key = (String, String, String);

/// A chain of rules.
#[derive(Clone, Debug)]
pub struct Chain {
    /// Its family and table, and its name.
    pub key: Key,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

impl Chain {
    /// How nft names it.
    pub fn title(&self) -> String {
        format!("{} {} {}", self.key.0, self.key.1, self.key.2)
    }
}

/// A chain that the kernel enters by itself.
#[derive(Clone, Debug)]
pub struct Base {
    key: Key,
    /// Where.
    pub hook: Hook,
    /// In which order.
    pub priority: i64,
    /// Whether what reaches its end passes.
    pub passes: bool,
    /// Which interfaces it is for, where it is for some.
    devices: Vec<String>,
}

impl Base {
    /// Whether packets on an interface enter it.
    pub fn is_for(&self, interface: &str, v6: bool) -> bool {
        let family = match &self.key.0[..] {
            "ip" => !v6,
            "ip6" => v6,
            _ => true,
        };
        let all = self.hook != Hook::Ingress;
        family && (all || self.devices.iter().any(|name| name == interface))
    }
}

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its number, as `nft -a` shows it.
    pub handle: u64,
    /// What it asks and does, in order.
    pub statements: Vec<Statement>,
}

fn text(json: &Json, key: &str) -> Result<String, String> {
    let text = json.get(key).and_then(Json::as_str);
    text.map(str::to_owned)
        .ok_or_else(|| format!("an object without {key:?}"))
}

/// One text, or a list of them.
fn texts(json: Option<&Json>) -> Vec<String> {
    let texts = |json: &Json| json.as_str().map(str::to_owned);
    match json {
        Some(Json::Array(list)) => list.iter().filter_map(texts).collect(),
        Some(one) => texts(one).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A list, empty where there is none.
fn list<'a>(json: &'a Json, key: &str) -> Result<&'a [Json], String> {
    match json.get(key) {
        None => Ok(&[]),
        Some(Json::Array(list)) => Ok(list),
        Some(_) => Err(format!("{key:?} is no list")),
    }
}

impl Ruleset {
    /// Reads what nft printed.
    ///
    /// # Errors
    /// If it is not what libnftables-json(5) says. What it says and this does
    /// not understand is kept as such.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let json: Json = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let objects = json.get("nftables").and_then(Json::as_array);
        let objects = objects.ok_or("no list \"nftables\"")?;
        let mut ruleset = Self::default();
        let mut dormant = Vec::new();
        let of_kind = |kind: &'static str| objects.iter().filter_map(move |one| one.get(kind));
        for table in of_kind("table") {
            if texts(table.get("flags"))
                .iter()
                .any(|flag| flag == "dormant")
            {
                dormant.push((text(table, "family")?, text(table, "name")?));
            }
        }
        for kind in ["set", "map"] {
            for set in of_kind(kind) {
                ruleset.set(set)?;
            }
        }
        for chain in of_kind("chain") {
            ruleset.chain(chain, &dormant)?;
        }
        for rule in of_kind("rule") {
            ruleset.rule(rule)?;
        }
        ruleset.base.sort_by_key(|base| (base.hook, base.priority));
        Ok(ruleset)
    }

    fn set(&mut self, set: &Json) -> Result<(), String> {
        let key = (
            text(set, "family")?,
            text(set, "table")?,
            text(set, "name")?,
        );
        let elements = list(set, "elem")?;
        if set.get("map").is_some() {
            let pairs: Vec<_> = elements.iter().map(pair).collect();
            let items: Vec<_> = pairs.iter().map(|(item, _)| item.clone()).collect();
            self.note(&items);
            self.maps.insert(key, pairs);
        } else {
            let items: Vec<_> = elements.iter().map(Item::read).collect();
            self.note(&items);
            self.sets.insert(key, Set::new(items));
        }
        Ok(())
    }

    fn chain(&mut self, chain: &Json, dormant: &[(String, String)]) -> Result<(), String> {
        let family = text(chain, "family")?;
        let table = text(chain, "table")?;
        let key = (family, table, text(chain, "name")?);
        let awake = !dormant
            .iter()
            .any(|(family, table)| (family, table) == (&key.0, &key.1));
        let hook = match chain.get("hook").and_then(Json::as_str) {
            Some("ingress") => Some(Hook::Ingress),
            Some("prerouting") => Some(Hook::Prerouting),
            Some("input") => Some(Hook::Input),
            Some("forward") => Some(Hook::Forward),
            Some("postrouting") => Some(Hook::Postrouting),
            // What leaves is not looked at.
            _ => None,
        };
        // Frames of a bridge's ports and ARP are no packets of a plane.
        let asked = matches!(&key.0[..], "ip" | "ip6" | "inet" | "netdev");
        if let Some(hook) = hook.filter(|_| awake && asked) {
            let priority = chain.get("prio").and_then(Json::as_i64);
            self.base.push(Base {
                key: key.clone(),
                hook,
                priority: priority.ok_or("a chain with a hook and without a number \"prio\"")?,
                passes: chain.get("policy").and_then(Json::as_str) != Some("drop"),
                devices: texts(chain.get("dev")),
            });
        }
        let rules = Vec::new();
        self.chains.insert(key.clone(), Chain { key, rules });
        Ok(())
    }

    fn rule(&mut self, rule: &Json) -> Result<(), String> {
        let (family, table) = (text(rule, "family")?, text(rule, "table")?);
        let key = (family, table, text(rule, "chain")?);
        let expressions = list(rule, "expr")?;
        let mut items = Vec::new();
        let mut statements = Vec::new();
        for one in expressions {
            statements.extend(implied(one));
            statements.push(statement(one, &mut items));
        }
        self.note(&items);
        let chain = self
            .chains
            .get_mut(&key)
            .ok_or("a rule without its chain")?;
        chain.rules.push(Rule {
            handle: rule.get("handle").and_then(Json::as_u64).unwrap_or(0),
            statements,
        });
        Ok(())
    }

    /// Notes where something else begins.
    fn note(&mut self, items: &[Item]) {
        for item in items {
            match item {
                Item::Numbers(from, to) => self.numbers.extend([*from, to.saturating_add(1)]),
                Item::Addresses(six, from, to) => {
                    let step = if *six { 1 } else { 1 << 96 };
                    let behind = to.saturating_add(step);
                    // Of IPv4 the lower bits are no address.
                    let whole = |bits: u128| bits / step * step;
                    self.addresses[usize::from(*six)].extend([whole(*from), whole(behind)]);
                }
                Item::Joined(items) => self.note(items),
                Item::Name(_) | Item::Any | Item::Odd => {}
            }
        }
    }

    /// The chain of a base chain.
    pub fn of(&self, base: &Base) -> Option<&Chain> {
        self.chains.get(&base.key)
    }

    /// A chain of the same table.
    pub fn beside(&self, chain: &Chain, name: &str) -> Option<&Chain> {
        self.chains.get(&named(chain, name))
    }

    /// A set of the same table.
    pub fn set_of(&self, chain: &Chain, name: &str) -> Option<&Set> {
        self.sets.get(&named(chain, name))
    }

    /// A map to verdicts of the same table.
    pub fn map_of(&self, chain: &Chain, name: &str) -> Option<&[(Item, Verdict)]> {
        self.maps.get(&named(chain, name)).map(Vec::as_slice)
    }
}

fn named(chain: &Chain, name: &str) -> Key {
    (chain.key.0.clone(), chain.key.1.clone(), name.to_owned())
}
