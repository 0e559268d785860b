//! Ids of traces and spans that are the same for each try.

use std::hash::{Hash as _, Hasher as _};

use siphasher::{
    sip::SipHasher24,
    sip128::{Hasher128 as _, SipHasher24 as SipHasher128},
};

use super::resource::Resource;
use crate::record::{Attribute, Record};

/// Ids of an operation and its stages, out of what tells it from all others:
/// the node, the event's number and its time. An exemplar knows these, too.
pub struct Ids {
    /// Of the trace; never 0, which would be none.
    pub trace: [u8; 16],
}

impl Ids {
    /// Those of an event: its time in nanoseconds since 1970 (UTC), and its
    /// number.
    pub fn new(resource: &Resource, time_ns: u64, event: u64) -> Self {
        let mut hasher = SipHasher128::new();
        resource.instance().hash(&mut hasher);
        hasher.write(&time_ns.to_le_bytes());
        hasher.write(&event.to_le_bytes());
        let trace = hasher.finish128().as_u128().max(1);
        Self {
            trace: trace.to_be_bytes(),
        }
    }

    /// Those of the event that a record tells of.
    pub fn of(resource: &Resource, record: &Record<'_>) -> Self {
        let event = record
            .attributes
            .iter()
            .find_map(|(name, value)| match value {
                Attribute::Integer(value) if *name == "event_id" => Some(*value),
                _ => None,
            });
        Self::new(resource, record.time_ns, event.unwrap_or(0))
    }

    /// Of a span: 0 is the operation, and its stages follow.
    pub fn span(&self, number: u64) -> [u8; 8] {
        let mut hasher = SipHasher24::new();
        hasher.write(&self.trace);
        hasher.write(&number.to_le_bytes());
        hasher.finish().max(1).to_be_bytes()
    }
}
