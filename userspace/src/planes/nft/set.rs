//! What rules compare with: numbers, addresses, names, and sets of them.

use std::{collections::HashSet, net::IpAddr};

use serde_json::Value as Json;

use super::field::Value;
use crate::planes::policy::Prefix;

/// What is known of a question.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Truth {
    /// It is so.
    Yes,
    /// It is not.
    No,
    /// It cannot be told from here.
    Unknown,
}

impl Truth {
    /// The truth of what is known.
    pub fn of(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }

    /// The opposite.
    pub fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

/// One value, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Addresses of IPv6 or not, from and to, both included, as
    /// [`Prefix::bits`].
    Addresses(bool, u128, u128),
    /// Numbers, from and to, both included.
    Numbers(u64, u64),
    /// A name; a `*` at its end stands for any text.
    Name(String),
    /// Whatever is not named.
    Any,
    /// Several at once.
    Joined(Vec<Self>),
    /// Something else.
    Odd,
}

impl Item {
    /// Reads a value as `nft -j -n` writes it.
    pub fn read(json: &Json) -> Self {
        match json {
            Json::Bool(on) => Self::Numbers(u64::from(*on), u64::from(*on)),
            Json::Number(number) => number
                .as_u64()
                .map_or(Self::Odd, |number| Self::Numbers(number, number)),
            Json::String(text) if text == "*" => Self::Any,
            Json::String(text) => text
                .parse()
                .map_or_else(|_| Self::Name(text.clone()), Self::address),
            Json::Object(object) => {
                let mut entries = object.iter();
                let (Some((kind, body)), None) = (entries.next(), entries.next()) else {
                    return Self::Odd;
                };
                Self::within(kind, body)
            }
            Json::Null | Json::Array(_) => Self::Odd,
        }
    }

    fn within(kind: &str, body: &Json) -> Self {
        match kind {
            "elem" => body.get("val").map_or(Self::Odd, Self::read),
            "concat" => body.as_array().map_or(Self::Odd, |parts| {
                Self::Joined(parts.iter().map(Self::read).collect())
            }),
            "prefix" => {
                let address = body.get("addr").and_then(Json::as_str);
                let address = address.and_then(|text| text.parse::<IpAddr>().ok());
                let length = body.get("len").and_then(Json::as_u64);
                let (Some(address), Some(length)) = (address, length) else {
                    return Self::Odd;
                };
                let prefix = Prefix::new(address, length.min(128) as u8);
                Self::Addresses(prefix.v6, prefix.bits, prefix.last())
            }
            "range" => match body.as_array().map(Vec::as_slice) {
                Some([from, to]) => match (Self::read(from), Self::read(to)) {
                    (Self::Numbers(from, _), Self::Numbers(to, _)) => Self::Numbers(from, to),
                    (Self::Addresses(six, from, _), Self::Addresses(too, to, _)) if six == too => {
                        Self::Addresses(six, from, to)
                    }
                    _ => Self::Odd,
                },
                _ => Self::Odd,
            },
            _ => Self::Odd,
        }
    }

    fn address(address: IpAddr) -> Self {
        let Prefix { v6, bits, .. } = Prefix::new(address, 128);
        Self::Addresses(v6, bits, bits)
    }

    /// Whether it covers a value of a packet.
    pub fn covers(&self, value: &Value<'_>) -> Truth {
        match (self, value) {
            (Self::Any, _) => Truth::Yes,
            (Self::Addresses(six, from, to), Value::Address(one)) => {
                Truth::of(*six == one.v6 && (*from..=*to).contains(&one.bits))
            }
            (Self::Numbers(from, to), Value::Number(one)) => Truth::of((*from..=*to).contains(one)),
            (Self::Name(name), Value::Name(one)) => Truth::of(is_named(name, one)),
            (Self::Joined(items), Value::Joined(values)) if items.len() == values.len() => {
                let mut all = Truth::Yes;
                for (item, value) in items.iter().zip(values) {
                    match item.covers(value) {
                        Truth::No => return Truth::No,
                        Truth::Unknown => all = Truth::Unknown,
                        Truth::Yes => {}
                    }
                }
                all
            }
            // It is odd, or of another kind than the value.
            _ => Truth::Unknown,
        }
    }
}

/// Whether a name is one that a rule writes so. nft writes a `*` that is meant
/// as such with a backslash.
fn is_named(written: &str, name: &str) -> bool {
    match written.strip_suffix('*') {
        Some(start) => match start.strip_suffix('\\') {
            Some(start) => name.strip_suffix('*') == Some(start),
            None => name.starts_with(start),
        },
        None => written == name,
    }
}

/// Many items, found at once.
#[derive(Clone, Debug, Default)]
pub struct Set {
    /// Of IPv4 and of IPv6: disjoint and ascending.
    addresses: [Vec<(u128, u128)>; 2],
    numbers: Vec<(u64, u64)>,
    names: HashSet<String>,
    /// What can only be tried one after the other.
    others: Vec<Item>,
    any: bool,
    odd: bool,
}

impl Set {
    /// A set of these.
    pub fn new(items: impl IntoIterator<Item = Item>) -> Self {
        let mut set = Self::default();
        for item in items {
            match item {
                Item::Addresses(six, from, to) => {
                    set.addresses[usize::from(six)].push((from, to));
                }
                Item::Numbers(from, to) => set.numbers.push((from, to)),
                Item::Name(name) if !name.ends_with('*') => {
                    set.names.insert(name);
                }
                Item::Any => set.any = true,
                Item::Odd => set.odd = true,
                Item::Name(_) | Item::Joined(_) => set.others.push(item),
            }
        }
        for list in &mut set.addresses {
            disjoint(list);
        }
        disjoint(&mut set.numbers);
        set
    }

    /// How many must be tried one after the other.
    pub fn slow(&self) -> usize {
        self.others.len()
    }

    /// Whether it has a value of a packet.
    pub fn has(&self, value: &Value<'_>) -> Truth {
        let named = !self.names.is_empty() || !self.others.is_empty();
        let addressed = self.addresses.iter().any(|list| !list.is_empty());
        // Of another kind than the value: then it is not understood.
        let (found, odd) = match value {
            Value::Unknown | Value::Absent => return Truth::Unknown,
            Value::Address(one) => (
                within(&self.addresses[usize::from(one.v6)], one.bits),
                named || !self.numbers.is_empty(),
            ),
            Value::Number(one) => (within(&self.numbers, *one), named || addressed),
            Value::Name(name) => (
                self.names.contains(*name),
                addressed || !self.numbers.is_empty(),
            ),
            Value::Joined(_) => (false, addressed || !self.numbers.is_empty()),
        };
        if found || self.any {
            return Truth::Yes;
        }
        let mut all = Truth::of(false);
        for item in &self.others {
            match item.covers(value) {
                Truth::Yes => return Truth::Yes,
                Truth::Unknown => all = Truth::Unknown,
                Truth::No => {}
            }
        }
        if odd || self.odd { Truth::Unknown } else { all }
    }
}

/// Sorts ranges, and joins those that overlap.
fn disjoint<T: Copy + Ord>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let overlap = next.0 <= last.1;
        if overlap {
            last.1 = last.1.max(next.1);
        }
        overlap
    });
}

fn within<T: Copy + Ord>(ranges: &[(T, T)], one: T) -> bool {
    let behind = ranges.partition_point(|(from, _)| *from <= one);
    behind > 0 && ranges[behind - 1].1 >= one
}
