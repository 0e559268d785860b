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

/// Puts spans, and each bucket's count as its difference from the one before,
/// in place of what the two vectors held.
///
/// Durations over 1024 s go to [`OVERFLOW_INDEX`]: how long they were is not
/// known, and a quantile among them should read +Inf rather than a guess.
pub fn spans_and_deltas(histogram: &Histogram, spans: &mut Vec<Span>, deltas: &mut Vec<i64>) {
    spans.clear();
    deltas.clear();
    let overflow = (histogram.overflow > 0).then_some((OVERFLOW_INDEX, histogram.overflow));
    let (mut next, mut previous) = (0, 0);
    for (index, count) in histogram.buckets.iter().copied().chain(overflow) {
        match spans.last_mut() {
            Some(span) if index == next => span.length += 1,
            _ => spans.push(Span {
                offset: index - next,
                length: 1,
            }),
        }
        next = index + 1;
        deltas.push(count.wrapping_sub(previous).cast_signed());
        previous = count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(histogram: &Histogram) -> (Vec<(i32, u32)>, Vec<i64>) {
        let (mut spans, mut deltas) = (Vec::new(), Vec::new());
        spans_and_deltas(histogram, &mut spans, &mut deltas);
        (
            spans
                .iter()
                .map(|span| (span.offset, span.length))
                .collect(),
            deltas,
        )
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
