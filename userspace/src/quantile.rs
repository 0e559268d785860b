//! What a histogram says: its quantiles, the difference of two and the sum of
//! several.

use std::cmp::Ordering;

use kldtrace_exporters::model::Histogram;

/// The figures of a distribution that people compare, in seconds.
///
/// A quantile is the geometric middle of the bucket that it falls in, so it is
/// off by at most a factor of 2^(1/16): 4.4 %. A quantile in the zero bucket
/// is 0, and one beyond 1024 s is [`f64::INFINITY`]. Count and mean are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Number of durations.
    pub count: u64,
    /// Arithmetic mean, exact; 0 if there are none.
    pub mean: f64,
    /// Half of the durations are at most this long.
    pub p50: f64,
    /// Nine of ten are at most this long.
    pub p90: f64,
    /// 99 of 100 are at most this long.
    pub p99: f64,
    /// 999 of 1000 are at most this long.
    pub p999: f64,
    /// Upper bound of the highest bucket that is not empty: no duration was
    /// longer, and the longest is at most 8.3 % shorter.
    pub max: f64,
}

impl Summary {
    /// Summarises `histogram`; all zero if it is empty.
    pub fn of(histogram: &Histogram) -> Self {
        let count = count(histogram);
        if count == 0 {
            return Self::default();
        }
        let [p50, p90, p99, p999] = [500, 900, 990, 999]
            .map(|per_mille| quantile(histogram, per_mille).unwrap_or_default());
        Self {
            count,
            mean: histogram.sum_seconds() / count as f64,
            p50,
            p90,
            p99,
            p999,
            max: max(histogram),
        }
    }
}

/// Number of durations, also where the histogram came from elsewhere and its
/// counts add up to more than 2^64.
pub fn count(histogram: &Histogram) -> u64 {
    let buckets = histogram.buckets.iter().map(|(_, count)| *count);
    buckets.fold(
        histogram.zero.saturating_add(histogram.overflow),
        u64::saturating_add,
    )
}

/// Geometric middle of bucket `index`, in seconds.
pub fn middle(index: i32) -> f64 {
    ((f64::from(index) - 0.5) / 8.0).exp2()
}

/// The duration that `per_mille` of 1000 are at most as long as, in seconds, as of [`Summary`];
/// `None` where there are none.
pub fn quantile(histogram: &Histogram, per_mille: u16) -> Option<f64> {
    let count = count(histogram);
    (count > 0).then(|| {
        // In whole numbers: 0.9 times ten is not nine in floating point.
        let rank = (u128::from(count) * u128::from(per_mille)).div_ceil(1000);
        value_at(histogram, u64::try_from(rank).unwrap_or(u64::MAX))
    })
}

/// The durations that were longer than the upper bound of bucket `index`.
pub fn longer_than(histogram: &Histogram, index: i32) -> u64 {
    let beyond = histogram.buckets.iter().rev();
    let beyond = beyond.take_while(|(bucket, _)| *bucket > index);
    beyond.fold(histogram.overflow, |sum, (_, count)| {
        sum.saturating_add(*count)
    })
}

/// The duration of rank `rank` (the shortest has rank 1), in seconds.
fn value_at(histogram: &Histogram, rank: u64) -> f64 {
    let mut seen = histogram.zero;
    if seen >= rank {
        return 0.0;
    }
    for (index, count) in &histogram.buckets {
        seen = seen.saturating_add(*count);
        if seen >= rank {
            return middle(*index);
        }
    }
    f64::INFINITY
}

fn max(histogram: &Histogram) -> f64 {
    if histogram.overflow > 0 {
        return f64::INFINITY;
    }
    let highest = histogram.buckets.iter().rev().find(|(_, count)| *count > 0);
    highest.map_or(0.0, |(index, _)| Histogram::upper_bound(*index))
}

/// What was added between the snapshots `before` and `after` of one series.
///
/// A series whose counts went down was taken out and made anew in between;
/// then everything in `after` is new, as Prometheus counts it.
pub fn since(after: &Histogram, before: &Histogram) -> Histogram {
    let mut fell = after.sum_ns < before.sum_ns
        || after.zero < before.zero
        || after.overflow < before.overflow;
    let buckets = joined(after, before, |after, before| {
        fell |= after < before;
        after.saturating_sub(before)
    });
    if fell {
        return after.clone();
    }
    Histogram {
        sum_ns: after.sum_ns - before.sum_ns,
        zero: after.zero - before.zero,
        buckets,
        overflow: after.overflow - before.overflow,
        exemplars: Vec::new(),
    }
}

/// Adds `other` to `total`. Counts stop at 2^64 - 1.
pub fn merge(total: &mut Histogram, other: &Histogram) {
    total.buckets = joined(total, other, u64::saturating_add);
    total.sum_ns = total.sum_ns.saturating_add(other.sum_ns);
    total.zero = total.zero.saturating_add(other.zero);
    total.overflow = total.overflow.saturating_add(other.overflow);
}

/// The buckets of both histograms, ascending, with their counts combined; the
/// empty ones left out.
fn joined(
    left: &Histogram,
    right: &Histogram,
    mut combine: impl FnMut(u64, u64) -> u64,
) -> Vec<(i32, u64)> {
    let (mut left, mut right) = (left.buckets.as_slice(), right.buckets.as_slice());
    let mut buckets = Vec::with_capacity(left.len().max(right.len()));
    loop {
        let order = match (left.first(), right.first()) {
            (None, None) => return buckets,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let (mut index, mut counts) = (0, [0, 0]);
        if order.is_le() {
            (index, counts[0]) = left[0];
            left = &left[1..];
        }
        if order.is_ge() {
            (index, counts[1]) = right[0];
            right = &right[1..];
        }
        let count = combine(counts[0], counts[1]);
        if count > 0 {
            buckets.push((index, count));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Any histogram that the kernel side can produce, with counts up to 2^32.
    pub fn histograms() -> impl Strategy<Value = Histogram> {
        let count = || prop_oneof![0..4_u64, 0..=u64::from(u32::MAX)];
        let buckets = prop::collection::btree_map(
            Histogram::FIRST_INDEX..=Histogram::LAST_INDEX,
            1..=u64::from(u32::MAX),
            0..12,
        );
        (any::<u32>(), count(), buckets, count()).prop_map(|(sum, zero, buckets, overflow)| {
            Histogram {
                sum_ns: sum.into(),
                zero,
                buckets: buckets.into_iter().collect(),
                overflow,
                exemplars: Vec::new(),
            }
        })
    }

    #[test]
    fn figures_of_a_known_distribution() {
        // 1 to 1000 of the same bucket but for the last: 2^(-1/16) s, 2^(7/8) s.
        let histogram = Histogram {
            sum_ns: 1_000_000_000_000,
            zero: 0,
            buckets: vec![(0, 999), (8, 1)],
            overflow: 0,
            exemplars: Vec::new(),
        };
        let summary = Summary::of(&histogram);
        let middle = (-1.0_f64 / 16.0).exp2();
        let expected = Summary {
            count: 1000,
            mean: 1.0,
            p50: middle,
            p90: middle,
            p99: middle,
            p999: middle,
            max: 2.0,
        };
        assert_eq!(summary, expected);
    }

    #[test]
    fn zero_overflow_and_nothing() {
        assert_eq!(Summary::of(&Histogram::default()), Summary::default());
        let summary = Summary::of(&Histogram {
            zero: 9,
            overflow: 1,
            ..Histogram::default()
        });
        // Nine of ten, exactly, are zero.
        assert!(summary.p50 == 0.0 && summary.p90 == 0.0);
        assert!(summary.p99.is_infinite() && summary.max.is_infinite());
    }

    #[test]
    fn a_series_made_anew_counts_whole() {
        let before = Histogram {
            sum_ns: 100,
            buckets: vec![(-100, 5), (-90, 3)],
            ..Histogram::default()
        };
        let after = Histogram {
            sum_ns: 200,
            buckets: vec![(-100, 4), (-90, 9)],
            ..Histogram::default()
        };
        assert_eq!(since(&after, &before), after);
    }

    #[test]
    fn hostile_counts_saturate() {
        let full = Histogram {
            sum_ns: u64::MAX,
            zero: u64::MAX,
            buckets: vec![(i32::MIN, u64::MAX), (i32::MAX, u64::MAX)],
            overflow: u64::MAX,
            exemplars: Vec::new(),
        };
        let mut twice = full.clone();
        merge(&mut twice, &full);
        assert_eq!(twice, full);
        assert_eq!(Summary::of(&full).count, u64::MAX);
        assert_eq!(count(&since(&full, &full)), 0);
    }

    proptest! {
        #[test]
        fn difference_undoes_merging(before in histograms(), new in histograms()) {
            let mut after = before.clone();
            merge(&mut after, &new);
            prop_assert_eq!(count(&after), count(&before) + count(&new));
            prop_assert_eq!(since(&after, &before), new);
        }

        #[test]
        fn quantiles_ascend(histogram in histograms()) {
            let Summary { p50, p90, p99, p999, max, .. } = Summary::of(&histogram);
            prop_assert!(p50 <= p90 && p90 <= p99 && p99 <= p999 && p999 <= max);
        }
    }
}
