//! Queues of tasks by name.

use std::{collections::HashMap, sync::Arc};

use aya::maps::MapError;
use kldtrace_abi::{histogram::Histogram, zfs_taskq::TaskqKey};

use super::part::Part;
use crate::{signals::table::OTHER_LABEL, words::until_zero};

/// Queues by name.
pub(super) type Taskqs = Part<TaskqKey, Histogram, Arc<str>>;

/// `series` is the limit of label sets.
pub(super) fn new(series: usize) -> Taskqs {
    Part::new("zfs_taskqs", series, OTHER_LABEL.into())
}

/// Sums by name. All pools have queues of the same names, so none ever ends.
pub(super) fn read(part: &mut Taskqs) -> Result<HashMap<Arc<str>, Box<Histogram>>, MapError> {
    let accounts = part.read()?;
    Ok(part.sum(accounts, |key| {
        if *key == TaskqKey::OTHER {
            return (OTHER_LABEL.into(), false);
        }
        (name(&until_zero(&key.name)).into(), false)
    }))
}

/// Without the number that one of several of the same kind has: `z_wr_iss_3`,
/// `zvol_tq-0`.
fn name(queue: &str) -> &str {
    let kind = queue.trim_end_matches(|c: char| c.is_ascii_digit());
    kind.strip_suffix(['_', '-']).unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_a_kind_are_one() {
        for (queue, kind) in [
            ("z_wr_iss", "z_wr_iss"),
            ("z_wr_iss_h", "z_wr_iss_h"),
            ("z_wr_iss_11", "z_wr_iss"),
            ("zvol_tq-0", "zvol_tq"),
            ("zvol", "zvol"),
            ("7", ""),
        ] {
            assert_eq!(name(queue), kind);
        }
    }
}
