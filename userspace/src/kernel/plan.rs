//! From the signals asked for to what has to be loaded: pure, no kernel call.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    btf::{Btf, BtfError},
    object::Field,
};
use crate::catalogue::{Hook, Signal};

/// Offsets of all fields that the probes can read, or why there is none.
pub struct Offsets {
    programs: BTreeMap<String, BTreeSet<Field>>,
    values: HashMap<String, Result<u64, String>>,
}

impl Offsets {
    /// Resolves every field of the object file.
    pub fn resolve(
        programs: BTreeMap<String, BTreeSet<Field>>,
        btf: &Result<Btf, BtfError>,
    ) -> Self {
        let mut values = HashMap::new();
        for field in programs.values().flatten() {
            values.entry(field.dotted()).or_insert_with(|| {
                let path: Vec<&str> = field.path.iter().map(String::as_str).collect();
                match btf {
                    Ok(btf) => btf.offset_of(&field.of, &path).map_err(|e| e.to_string()),
                    Err(error) => Err(error.to_string()),
                }
            });
        }
        Self { programs, values }
    }

    /// The symbols to set. What did not resolve stays 0: no program that
    /// reads it is loaded, or the code that does is switched off.
    pub fn globals(&self) -> impl Iterator<Item = (&str, u64)> {
        let fields: BTreeSet<&Field> = self.programs.values().flatten().collect();
        fields.into_iter().filter_map(|field| {
            let value = self.values.get(&field.dotted())?.as_ref().ok()?;
            Some((field.symbol.as_str(), *value))
        })
    }

    /// Why a program cannot be loaded whatever is switched off; `None`: it can.
    pub fn program_lacks(&self, program: &str, switchable: &BTreeSet<&str>) -> Option<String> {
        let fields = self.programs.get(program)?;
        fields.iter().map(Field::dotted).find_map(|field| {
            if switchable.contains(field.as_str()) {
                return None;
            }
            self.values.get(&field)?.as_ref().err().cloned()
        })
    }

    /// Why a signal cannot be had on account of its own fields.
    pub fn signal_lacks(&self, signal: &Signal) -> Option<String> {
        signal
            .fields
            .iter()
            .find_map(|field| self.values.get(*field)?.as_ref().err().cloned())
    }
}

/// Fields that one signal alone reads, behind its switch.
pub fn switchable_fields<'a>(
    signals: impl IntoIterator<Item = &'a &'static Signal>,
) -> BTreeSet<&'static str> {
    signals
        .into_iter()
        .flat_map(|signal| signal.fields.iter().copied())
        .collect()
}

/// The hooks of some signals, each once, in the order of the catalogue.
pub fn hooks<'a>(signals: impl IntoIterator<Item = &'a &'static Signal>) -> Vec<&'static [Hook]> {
    let mut all: Vec<&'static [Hook]> = Vec::new();
    for hook in signals.into_iter().flat_map(|signal| signal.hooks) {
        if !all.contains(hook) {
            all.push(hook);
        }
    }
    all
}
