//! Which exemplar goes with which classic bucket.

use super::classic;
use crate::model::{Exemplar, Histogram};

/// The label that every format gives to the event's number.
pub const LABEL: &str = "event_id";

/// The newest exemplar of each finite bucket, and last that of `+Inf`.
pub fn by_bucket(histogram: &Histogram) -> Vec<Option<&Exemplar>> {
    if histogram.exemplars.is_empty() {
        return Vec::new();
    }
    let mut buckets = vec![None; classic::FINITE.len() + 1];
    for exemplar in &histogram.exemplars {
        let at = classic::FINITE.partition_point(|bound| bound.seconds < exemplar.seconds);
        buckets[at].get_or_insert(exemplar);
    }
    buckets
}
