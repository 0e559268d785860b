//! The ring buffer of told packets, which one reads at a time.

use std::fs::{File, TryLockError};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use kldtrace_abi::plane::{Action, Facts, Malformed, Outcome, Reason, count::Told};

use crate::planes::pins::Pins;

/// As many as the ring buffer has room for (`PLANE_TOLD` of
/// probes/src/plane/maps.rs).
const AT_ONCE: usize = 262_144 / size_of::<Told>();

/// The ring buffer, and the lock that goes with it.
pub struct Ring {
    events: RingBuf<MapData>,
    _lock: File,
}

impl Ring {
    /// Takes it; `None`: another has it, or there is none. It is opened only
    /// now, as where it is to be read next is known from then on.
    ///
    /// # Errors
    /// Without rights, or for another version's.
    pub fn take(pins: &Pins) -> anyhow::Result<Option<Self>> {
        let folder = pins.maps();
        let lock =
            File::open(&folder).with_context(|| format!("cannot open {}", folder.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", folder.display()));
            }
        }
        let events = pins.told()?;
        Ok(events.map(|events| Self {
            events,
            _lock: lock,
        }))
    }

    /// The map.
    pub fn events(&self) -> &RingBuf<MapData> {
        &self.events
    }

    /// All that is there. What comes meanwhile is for the next reading, as in a
    /// flood it comes as fast as it is taken out.
    pub fn read(&mut self) -> Vec<Told> {
        let mut told = Vec::new();
        for _ in 0..AT_ONCE {
            let Some(bytes) = self.events.next() else {
                break;
            };
            told.extend(parse(&bytes));
        }
        told
    }
}

/// Takes in what a program wrote; `None`: it is none of its.
fn parse(bytes: &[u8]) -> Option<Told> {
    // What it has of enums, which not every byte is: their places.
    const FAMILY: usize = std::mem::offset_of!(Told, facts) + std::mem::offset_of!(Facts, family);
    const FRAGMENT: usize =
        std::mem::offset_of!(Told, facts) + std::mem::offset_of!(Facts, fragment);
    const MALFORMED: usize =
        std::mem::offset_of!(Told, facts) + std::mem::offset_of!(Facts, malformed);
    const ACTION: usize =
        std::mem::offset_of!(Told, outcome) + std::mem::offset_of!(Outcome, action);
    const REASON: usize =
        std::mem::offset_of!(Told, outcome) + std::mem::offset_of!(Outcome, reason);
    let bytes = bytes.get(..size_of::<Told>())?;
    let sound = matches!(bytes[FAMILY], 0 | 1 | 4 | 6)
        && bytes[FRAGMENT] <= 2
        && usize::from(bytes[MALFORMED]) <= Malformed::ALL.len()
        && bytes[ACTION] <= Action::WouldDrop as u8
        && usize::from(bytes[REASON]) < Reason::ALL.len();
    // SAFETY: there are enough bytes, its enums have values that they know, and
    // the rest of it are integers.
    sound.then(|| unsafe { std::ptr::read_unaligned(bytes.as_ptr().cast()) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn random_bytes_are_told_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(told) = parse(&bytes) {
                let _ = format!("{told:?}");
            }
        }

        #[test]
        fn small_numbers_are_told(bytes in prop::collection::vec(0_u8..2, size_of::<Told>())) {
            prop_assert!(parse(&bytes).is_some());
        }
    }
}
