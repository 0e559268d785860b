//! Histograms as the kernel may count them, at random.

use kldtrace_exporters::model::Histogram;
use proptest::{collection::btree_map, prelude::*};

pub fn histograms() -> impl Strategy<Value = Histogram> {
    // Sums of 400 such counts stay within u64.
    let count = 1..1_u64 << 50;
    let indices = Histogram::FIRST_INDEX..=Histogram::LAST_INDEX;
    let may_be_none = prop_oneof![Just(0), count.clone()];
    (
        any::<u64>(),
        may_be_none.clone(),
        btree_map(indices, count, 0..320),
        may_be_none,
    )
        .prop_map(|(sum_ns, zero, buckets, overflow)| Histogram {
            sum_ns,
            zero,
            buckets: buckets.into_iter().collect(),
            overflow,
            exemplars: Vec::new(),
        })
}
