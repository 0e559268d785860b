//! Classic histograms: the cumulative buckets of the text formats.

use std::sync::LazyLock;

use crate::model::Histogram;

/// The lowest bound is 2^-20 s, 0.95 us.
const FIRST_POWER: i32 = -20;
/// The highest bound is 2^10 s, where the model's buckets end.
const LAST_POWER: i32 = 10;
/// How many bounds there are, +Inf not counted.
const BOUNDS: usize = (LAST_POWER - FIRST_POWER + 1) as usize;
/// Native buckets from one bound to the next.
const BUCKETS_PER_POWER: i32 = 1 << Histogram::SCHEMA;

/// A bucket's upper bound. Every series of every family has the same ones, as
/// Prometheus can only add up buckets that agree.
pub struct Bound {
    /// The bound.
    pub seconds: f64,
    /// The value of the label `le`.
    pub le: String,
}

/// All finite bounds, in ascending order.
pub static FINITE: LazyLock<Vec<Bound>> = LazyLock::new(|| {
    (FIRST_POWER..=LAST_POWER)
        .map(|power| {
            let seconds = f64::from(power).exp2();
            Bound {
                seconds,
                le: le(seconds),
            }
        })
        .collect()
});

/// Spells a bound as Go's OpenMetrics library and Prometheus' protobuf parser
/// do, because `le` is a label: spelled otherwise, it is another series.
fn le(bound: f64) -> String {
    if bound >= 1e-4 {
        return format!("{bound:?}");
    }
    // Rust writes 9.5e-7 where Go writes 9.5e-07.
    let text = format!("{bound:e}");
    match text.split_once("e-") {
        Some((mantissa, exponent)) => format!("{mantissa}e-{exponent:0>2}"),
        None => text,
    }
}

/// How many durations there are up to each bound. Exact: each bound is one of
/// the model's bucket bounds, and both include their upper end.
pub fn cumulative(histogram: &Histogram) -> [u64; BOUNDS] {
    let mut counts = [0; BOUNDS];
    counts[0] = histogram.zero;
    for &(index, count) in &histogram.buckets {
        // The smallest power of two at or above the bucket's upper bound.
        let power = (index + BUCKETS_PER_POWER - 1).div_euclid(BUCKETS_PER_POWER);
        let position = usize::try_from(power - FIRST_POWER).unwrap_or(0);
        if let Some(slot) = counts.get_mut(position) {
            *slot += count;
        }
    }
    let mut total = 0;
    for count in &mut counts {
        total += *count;
        *count = total;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_the_models_own() {
        assert_eq!(FINITE.len(), BOUNDS);
        for (bound, power) in FINITE.iter().zip(FIRST_POWER..) {
            let index = power * BUCKETS_PER_POWER;
            assert!((Histogram::FIRST_INDEX..=Histogram::LAST_INDEX).contains(&index));
            assert_eq!(
                bound.seconds.to_bits(),
                Histogram::upper_bound(index).to_bits()
            );
            assert_eq!(bound.le.parse(), Ok(bound.seconds));
        }
        assert_eq!(LAST_POWER * BUCKETS_PER_POWER, Histogram::LAST_INDEX);
    }

    #[test]
    fn bounds_are_spelled_as_go_does() {
        let spelled: Vec<_> = FINITE.iter().map(|bound| bound.le.as_str()).collect();
        assert_eq!(spelled[0], "9.5367431640625e-07");
        assert_eq!(spelled[6], "6.103515625e-05");
        assert_eq!(spelled[7], "0.0001220703125");
        assert_eq!(spelled[20], "1.0");
        assert_eq!(spelled[30], "1024.0");
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let histogram = Histogram {
            zero: 1,
            buckets: vec![(-239, 1), (-160, 1), (-159, 1), (0, 1), (1, 1), (80, 1)],
            overflow: 1,
            ..Histogram::default()
        };
        let counts = cumulative(&histogram);
        assert_eq!(
            counts[0], 3,
            "zero, the lowest and the one that ends at 2^-20"
        );
        assert_eq!(counts[1], 4);
        assert_eq!(counts[20], 5, "up to 1 s");
        assert_eq!(counts[21], 6, "up to 2 s");
        assert_eq!(counts[30], 7, "all but the overflow");
    }
}
