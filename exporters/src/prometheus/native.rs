//! Native histograms: the model's buckets as spans and deltas.

use crate::model::Histogram;

/// The bucket for (largest `f64`, +Inf].
///
/// With schema 3, 1024 * 8 is the index whose bound would be 2^1024; the
/// specification makes that bound the largest `f64`, and the index after it
/// the bucket for what is beyond. See `getBound` in Prometheus'
/// model/histogram/generic.go.
pub const OVERFLOW_INDEX: i32 = 1024 * (1 << Histogram::SCHEMA) + 1;

/// A run of buckets without a gap.
#[derive(Debug, PartialEq, Eq)]
pub struct Span {
    /// Buckets skipped since the span before; the first span's first index.
    pub offset: i32,
    /// How many buckets follow.
    pub length: u32,
}

/// The runs of buckets, and at last the overflow if there is one.
///
/// Durations over 1024 s go to [`OVERFLOW_INDEX`]: how long they were is not
/// known, and a quantile among them should read +Inf rather than a guess.
pub fn spans(histogram: &Histogram) -> impl Iterator<Item = Span> {
    let runs = histogram.buckets.chunk_by(|(a, _), (b, _)| a + 1 == *b);
    let runs = runs.map(|run| (run[0].0, run.len() as u32));
    let overflow = (histogram.overflow > 0).then_some((OVERFLOW_INDEX, 1));
    let mut next = 0;
    runs.chain(overflow).map(move |(first, length)| {
        let offset = first - next;
        next = first + length.cast_signed();
        Span { offset, length }
    })
}

/// How many [`deltas`] there are.
pub fn buckets(histogram: &Histogram) -> usize {
    histogram.buckets.len() + usize::from(histogram.overflow > 0)
}

/// Each bucket's count as its difference from the one before, and at last the
/// overflow's if there is one.
pub fn deltas(histogram: &Histogram) -> impl Iterator<Item = i64> {
    let counts = histogram.buckets.iter().map(|(_, count)| *count);
    let overflow = (histogram.overflow > 0).then_some(histogram.overflow);
    let mut previous = 0;
    counts.chain(overflow).map(move |count| {
        let delta = count.wrapping_sub(previous).cast_signed();
        previous = count;
        delta
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(histogram: &Histogram) -> (Vec<(i32, u32)>, Vec<i64>) {
        let spans: Vec<_> = spans(histogram)
            .map(|span| (span.offset, span.length))
            .collect();
        let deltas: Vec<_> = deltas(histogram).collect();
        assert_eq!(deltas.len(), buckets(histogram));
        (spans, deltas)
    }

    #[test]
    fn runs_become_spans() {
        let histogram = Histogram {
            buckets: vec![(-3, 5), (-2, 2), (1, 2)],
            ..Histogram::default()
        };
        assert_eq!(encoded(&histogram), (vec![(-3, 2), (2, 1)], vec![5, -3, 0]));
    }

    #[test]
    fn the_overflow_is_a_span_of_its_own() {
        let histogram = Histogram {
            buckets: vec![(80, 4)],
            overflow: 3,
            ..Histogram::default()
        };
        assert_eq!(encoded(&histogram), (vec![(80, 1), (8112, 1)], vec![4, -1]));
        assert_eq!(81 + 8112, OVERFLOW_INDEX);
    }

    #[test]
    fn nothing_makes_nothing() {
        assert_eq!(encoded(&Histogram::default()), (vec![], vec![]));
    }
}
