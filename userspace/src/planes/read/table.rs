//! Tables of TOML, and what is wrong with them.

use std::cell::RefCell;

use kldtrace_abi::plane::Rate;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::value;
use crate::{planes::policy::Prefix, words::did_you_mean};

/// A value with its place.
pub type Value<'a> = Spanned<DeValue<'a>>;

/// What is wrong, and where.
pub struct Faults {
    found: RefCell<Vec<(usize, String)>>,
    /// The bytes at which lines end.
    ends: Vec<usize>,
}

impl Faults {
    /// Nothing yet.
    pub fn new(text: &str) -> Self {
        let bytes = text.bytes().enumerate();
        Self {
            found: RefCell::default(),
            ends: bytes
                .filter(|(_, byte)| *byte == b'\n')
                .map(|(at, _)| at)
                .collect(),
        }
    }

    /// All of it.
    pub fn take(&self) -> Vec<(usize, String)> {
        self.found.take()
    }
}

/// A table of the file.
pub struct Table<'a, 'f> {
    /// What messages call it.
    kind: &'static str,
    entries: &'a DeTable<'a>,
    /// Where it begins.
    pub offset: usize,
    faults: &'f Faults,
}

/// A whole number.
pub fn number(value: &Value<'_>) -> Option<u64> {
    let number = value.get_ref().as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// Text from the file as a message quotes it.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

impl<'a, 'f> Table<'a, 'f> {
    /// A table that begins at a byte of the file.
    pub fn new(
        kind: &'static str,
        table: &'a DeTable<'a>,
        offset: usize,
        faults: &'f Faults,
    ) -> Self {
        Self {
            kind,
            entries: table,
            offset,
            faults,
        }
    }

    /// Notes what is wrong.
    pub fn fault(&self, offset: usize, message: String) {
        self.faults.found.borrow_mut().push((offset, message));
    }

    /// The line of a byte, from 1.
    pub fn line(&self, offset: usize) -> usize {
        self.faults.ends.partition_point(|end| *end < offset) + 1
    }

    /// A value by its key.
    pub fn get(&self, key: &str) -> Option<&'a Value<'a>> {
        self.entries.get(key)
    }

    /// All keys and values, in the order of the file.
    pub fn entries(&self) -> Vec<(&'a str, &'a Value<'a>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let entries = entries.into_iter();
        entries
            .map(|(name, value)| (name.get_ref().as_ref(), value))
            .collect()
    }

    /// Refuses other keys.
    pub fn only(&self, known: &[&'static str]) {
        for (name, _) in self.entries {
            let text: &str = name.get_ref();
            if !known.contains(&text) {
                let hint = did_you_mean(text, known.iter().copied());
                let message = format!("unknown key {} in {}{hint}", quoted(text), self.kind);
                self.fault(name.span().start, message);
            }
        }
    }

    /// Notes that a value is not what its key takes.
    fn wrong<T>(&self, key: &str, value: &Value<'_>, wanted: &str) -> Option<T> {
        let message = format!("{key} in {} must be {wanted}", self.kind);
        self.fault(value.span().start, message);
        None
    }

    /// A table in a value; `None` if it is none.
    pub fn within(&self, value: &'a Value<'a>, kind: &'static str) -> Option<Self> {
        let table = value.get_ref().as_table()?;
        Some(Table::new(kind, table, value.span().start, self.faults))
    }

    /// The table of a key.
    pub fn table(&self, key: &str, kind: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        let table = self.within(value, kind);
        if table.is_none() {
            return self.wrong(key, value, &format!("a table: {kind}"));
        }
        table
    }

    /// The tables of a key.
    pub fn tables(&self, key: &str, kind: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong::<()>(key, value, &format!("written as {kind}"));
            return Vec::new();
        };
        let tables = array.iter().filter_map(|value| {
            let table = self.within(value, kind);
            if table.is_none() {
                return self.wrong(key, value, &format!("written as {kind}"));
            }
            table
        });
        tables.collect()
    }

    /// The text of a key.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(text),
            None => self.wrong(key, value, "a text in quotes"),
        }
    }

    /// The name, which must be there and becomes a label.
    pub fn name(&self) -> String {
        let Some(name) = self.text("name") else {
            if self.get("name").is_none() {
                self.fault(self.offset, format!("{} without a name", self.kind));
            }
            return String::new();
        };
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            let offset = self
                .get("name")
                .map_or(self.offset, |value| value.span().start);
            let message = "a name must be 1 to 64 bytes, without control characters";
            self.fault(offset, message.to_owned());
        }
        name.to_owned()
    }

    /// A word of a closed set.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.get(key)?;
        self.one_of(key, value, words)
    }

    /// Words of a closed set.
    pub fn words<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Option<Vec<T>> {
        let values = self.values(key)?;
        let found = values
            .iter()
            .filter_map(|value| self.one_of(key, value, words));
        Some(found.collect())
    }

    /// One of the words that a value may be.
    pub fn one_of<T: Copy>(&self, key: &str, value: &Value<'_>, words: &[(&str, T)]) -> Option<T> {
        let text = value.get_ref().as_str().unwrap_or_default();
        let known = words.iter().find(|(word, _)| *word == text);
        if let Some((_, known)) = known {
            return Some(*known);
        }
        let choices: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let hint = did_you_mean(text, words.iter().map(|(word, _)| *word));
        self.wrong(key, value, &format!("{}{hint}", choices.join(" or ")))
    }

    /// The values of a list; one that is no list counts as a list of one.
    pub fn values(&self, key: &str) -> Option<Vec<&'a Value<'a>>> {
        let value = self.get(key)?;
        Some(match value.get_ref().as_array() {
            Some(array) => array.iter().collect(),
            None => vec![value],
        })
    }

    /// A list of prefixes, ascending and each once; `set` finds those behind an
    /// `@`. `None` also if something in it is wrong.
    pub fn prefixes<'s>(
        &self,
        key: &str,
        set: &dyn Fn(&str) -> Option<&'s [Prefix]>,
    ) -> Option<Vec<Prefix>> {
        let mut prefixes = Vec::new();
        let mut sound = true;
        for value in self.values(key)? {
            let text = value.get_ref().as_str().unwrap_or_default();
            let found = match text.strip_prefix('@') {
                Some(name) => set(name)
                    .map(|set| prefixes.extend(set))
                    .ok_or_else(|| format!("no set or plane {} here", quoted(name))),
                None => value::prefix(text)
                    .map(|prefix| prefixes.push(prefix))
                    .map_err(|message| format!("{key} in {} {message}", self.kind)),
            };
            if let Err(message) = found {
                sound = false;
                self.fault(value.span().start, message);
            }
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        sound.then_some(prefixes)
    }

    /// A list of ports and ranges.
    pub fn ports(&self, key: &str) -> Option<Vec<(u16, u16)>> {
        let mut ports = Vec::new();
        for value in self.values(key)? {
            let port = number(value).and_then(|number| u16::try_from(number).ok());
            let one = port.map(|port| (port, port));
            let range = || value.get_ref().as_str().and_then(value::ports);
            match one.or_else(range) {
                Some(range) => ports.push(range),
                None => {
                    let wanted = "ports such as 22 or \"8000-8100\"";
                    self.wrong::<()>(key, value, wanted);
                }
            }
        }
        Some(ports)
    }

    /// The keys `rate` and `burst`, or others with such values.
    pub fn rate(&self, rate: &str, most: &str) -> Rate {
        let burst = self.get(most).and_then(|value| {
            let burst = number(value).filter(|number| (1..=1_000_000).contains(number));
            burst.or_else(|| self.wrong(most, value, "a whole number from 1 to 1000000"))
        });
        let Some(value) = self.get(rate) else {
            if let Some(burst) = self.get(most) {
                self.wrong::<()>(most, burst, &format!("with a {rate}"));
            }
            return Rate::default();
        };
        let text = value.get_ref().as_str().unwrap_or_default();
        value::rate(text, burst).unwrap_or_else(|| {
            let wanted = "packets from one source such as \"100/s\", \"20/m\" or \"5/h\"";
            self.wrong::<()>(rate, value, wanted);
            Rate::default()
        })
    }

    /// The key `interfaces`.
    pub fn interfaces(&self) -> Vec<String> {
        let Some(values) = self.values("interfaces") else {
            self.fault(self.offset, format!("{} without interfaces", self.kind));
            return Vec::new();
        };
        let names = values.iter().filter_map(|value| {
            let name = value.get_ref().as_str().unwrap_or_default();
            // IFNAMSIZ with its zero: include/uapi/linux/if.h.
            let odd = |c: char| c.is_whitespace() || c == '/' || c.is_control();
            if name.is_empty() || name.len() > 15 || name.contains(odd) {
                return self.wrong(
                    "interfaces",
                    value,
                    "names of interfaces such as \"wg-mgmt\"",
                );
            }
            Some(name.to_owned())
        });
        names.collect()
    }
}
