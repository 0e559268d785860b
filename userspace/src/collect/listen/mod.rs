//! Placeholder while the module is being written.
#![allow(missing_docs)]
use std::{collections::BTreeMap, sync::Arc};
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listening { pub unit: Arc<str>, pub interface: Arc<str>, pub family: &'static str }
pub struct Listeners(BTreeMap<Listening, u64>);
impl Listeners {
    pub fn new() -> Self { Self(BTreeMap::new()) }
    pub fn read(&mut self, _: &dyn Fn(u64) -> Arc<str>) -> anyhow::Result<()> { Ok(()) }
    pub fn overflows(&self) -> u64 { 0 }
    pub fn drops(&self) -> &BTreeMap<Listening, u64> { &self.0 }
    pub fn failures(&self) -> u64 { 0 }
}
