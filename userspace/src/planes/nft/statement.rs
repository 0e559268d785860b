//! What a rule of nftables asks and does.

use serde_json::Value as Json;

use super::{
    field::{Field, bits},
    set::{Item, Set},
};
use crate::planes::compile::TCP;

/// A part of a rule.
#[derive(Clone, Debug)]
pub enum Statement {
    /// It goes on only if this holds.
    Match {
        /// What is compared.
        field: Field,
        /// How.
        how: How,
        /// What with.
        with: With,
        /// The field in words.
        words: String,
    },
    /// It goes on unless something is over a limit: a first packet is not.
    Limit {
        /// It goes on only if it is over.
        over: bool,
    },
    /// It decides.
    Verdict(Verdict),
    /// It decides by a map.
    Map {
        /// What is looked up.
        field: Field,
        /// In what.
        with: Pairs,
        /// The field in words.
        words: String,
    },
    /// It keeps the packet from conntrack.
    Untracked,
    /// It changes nothing about what becomes of the packet.
    Aside,
    /// Something else.
    Odd(String),
}

/// How a field is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// It is one of these.
    Is,
    /// It is none of these.
    IsNot,
    /// It has one of these bits.
    Bits,
    /// It is less.
    Less,
    /// It is more.
    More,
    /// It is at most this.
    Most,
    /// It is at least this.
    Least,
}

/// What a field is compared with.
#[derive(Clone, Debug)]
pub enum With {
    /// These.
    Items(Set),
    /// A number.
    Number(u64),
    /// A set of the table.
    Named(String),
    /// Something else.
    Odd,
}

/// Verdicts by values.
#[derive(Clone, Debug)]
pub enum Pairs {
    /// These.
    Here(Vec<(Item, Verdict)>),
    /// A map of the table.
    Named(String),
}

/// What becomes of a packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It has passed this chain.
    Accept,
    /// It is dropped, perhaps with an answer.
    Drop,
    /// This chain is over.
    Return,
    /// The next rule decides.
    Continue,
    /// Another chain decides, then the next rule.
    Jump(String),
    /// Another chain decides, and then this one is over.
    Goto(String),
    /// It becomes another packet, or somebody else decides.
    Other(String),
}

impl Verdict {
    /// Reads one.
    pub fn read(json: &Json) -> Self {
        let entry = json.as_object().and_then(|object| object.iter().next());
        let Some((kind, body)) = entry else {
            return Self::Other("an unknown verdict".to_owned());
        };
        Self::of(kind, body).unwrap_or_else(|| Self::Other(format!("{kind:?}")))
    }

    fn of(kind: &str, body: &Json) -> Option<Self> {
        let target = || Some(body.get("target")?.as_str()?.to_owned());
        Some(match kind {
            // A source that is written anew changes nothing about passing.
            "accept" | "snat" | "masquerade" => Self::Accept,
            "drop" | "reject" => Self::Drop,
            "return" => Self::Return,
            "continue" => Self::Continue,
            "jump" => Self::Jump(target()?),
            "goto" => Self::Goto(target()?),
            "dnat" | "redirect" | "tproxy" | "queue" | "fwd" | "synproxy" => {
                Self::Other(format!("{kind:?}"))
            }
            _ => return None,
        })
    }
}

/// What a statement asks that nft does not print: it takes from a listing
/// whatever a `reject` cannot be without.
pub fn implied(json: &Json) -> Option<Statement> {
    let kind = json.get("reject")?.get("type")?.as_str()?;
    let (field, number) = match kind {
        "icmp" => (Field::Nfproto, Field::IPV4),
        "icmpv6" => (Field::Nfproto, Field::IPV6),
        "tcp reset" => (Field::Protocol(0), TCP.into()),
        _ => return None,
    };
    Some(Statement::Match {
        field,
        how: How::Is,
        with: With::Number(number),
        words: kind.to_owned(),
    })
}

/// Reads a statement. What it compares with goes to `items` as well.
pub fn read(json: &Json, items: &mut Vec<Item>) -> Statement {
    let entry = json.as_object().and_then(|object| object.iter().next());
    let Some((kind, body)) = entry else {
        return Statement::Odd("something".to_owned());
    };
    let odd = || Statement::Odd(format!("{kind:?}"));
    if let Some(verdict) = Verdict::of(kind, body) {
        return Statement::Verdict(verdict);
    }
    match &kind[..] {
        "match" => compare(body, items).unwrap_or_else(odd),
        "vmap" => by_map(body, items).unwrap_or_else(odd),
        "limit" | "ct count" if body.is_object() => {
            let over = body.get("inv").and_then(Json::as_bool).unwrap_or(false);
            Statement::Limit { over }
        }
        "notrack" => Statement::Untracked,
        "counter" | "log" | "comment" | "last" | "dup" | "flow" | "secmark" | "ct helper"
        | "ct timeout" | "ct expectation" => Statement::Aside,
        // A mark and the like: what compares one is not understood anyway.
        "mangle" => {
            let key = body.get("key").and_then(Json::as_object);
            let key = key.and_then(|key| key.keys().next());
            match key.map(String::as_str) {
                Some("meta" | "ct" | "tcp option") => Statement::Aside,
                _ => odd(),
            }
        }
        // Adding to a set; with a statement of its own it may decide.
        "set" if body.get("stmt").is_none() => Statement::Aside,
        _ => odd(),
    }
}

fn compare(body: &Json, items: &mut Vec<Item>) -> Option<Statement> {
    let how = match body.get("op")?.as_str()? {
        "==" => How::Is,
        "!=" => How::IsNot,
        "in" => How::Bits,
        "<" => How::Less,
        ">" => How::More,
        "<=" => How::Most,
        ">=" => How::Least,
        _ => return None,
    };
    let left = body.get("left")?;
    let field = Field::read(left);
    let with = with(&field, body.get("right")?, items);
    if let With::Number(number) = with {
        items.push(Item::Numbers(number, number));
    }
    Some(Statement::Match {
        field,
        how,
        with,
        words: words(left),
    })
}

fn with(field: &Field, right: &Json, items: &mut Vec<Item>) -> With {
    if let Some(name) = right.as_str().and_then(|text| text.strip_prefix('@')) {
        return With::Named(name.to_owned());
    }
    if let Some(number) = bits(right) {
        return With::Number(field.host(number));
    }
    if *field == Field::Ethertype {
        return With::Odd;
    }
    let list = match right.get("set") {
        Some(Json::Array(list)) => list.iter().map(Item::read).collect(),
        Some(one) => vec![Item::read(one)],
        None => vec![Item::read(right)],
    };
    if list == [Item::Odd] {
        return With::Odd;
    }
    items.extend(list.iter().cloned());
    With::Items(Set::new(list))
}

fn by_map(body: &Json, items: &mut Vec<Item>) -> Option<Statement> {
    let left = body.get("key")?;
    let field = Some(Field::read(left)).filter(|field| *field != Field::Ethertype)?;
    let data = body.get("data")?;
    let with = match data.as_str().and_then(|text| text.strip_prefix('@')) {
        Some(name) => Pairs::Named(name.to_owned()),
        None => {
            let list = data.get("set")?.as_array()?;
            let pairs: Vec<_> = list.iter().map(pair).collect();
            items.extend(pairs.iter().map(|(item, _)| item.clone()));
            Pairs::Here(pairs)
        }
    };
    Some(Statement::Map {
        field,
        with,
        words: words(left),
    })
}

/// An element of a map to verdicts.
pub fn pair(json: &Json) -> (Item, Verdict) {
    match json.as_array().map(Vec::as_slice) {
        Some([key, verdict]) => (Item::read(key), Verdict::read(verdict)),
        _ => (Item::Odd, Verdict::read(json)),
    }
}

/// The left side of a comparison for people: `meta mark`, `ip saddr`.
fn words(left: &Json) -> String {
    let entry = left.as_object().and_then(|object| object.iter().next());
    let Some((kind, body)) = entry else {
        return "something".to_owned();
    };
    let text = |key: &str| body.get(key).and_then(Json::as_str);
    let words = match (&kind[..], text("protocol"), text("field"), text("key")) {
        ("payload", Some(protocol), Some(field), _) => format!("{protocol} {field}"),
        (_, _, _, Some(key)) => format!("{kind} {key}"),
        _ => kind.clone(),
    };
    words.chars().filter(|c| !c.is_control()).take(40).collect()
}
