//! The quantile that an explanation is of, and what lies at or above it.

use std::{fmt, str::FromStr};

use kldtrace_exporters::model::Histogram;

use crate::quantile::{count, middle};

/// A quantile, in millionths: whole numbers make no surprises at the edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantile(u32);

const WHOLE: u32 = 1_000_000;

impl FromStr for Quantile {
    type Err = String;

    /// `0.99`, or `p99`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || format!("{text:?} is no quantile: write 0.99 or p99");
        let (whole, fraction, places) = match text.strip_prefix('p') {
            Some(percent) => {
                let (whole, fraction) = percent.split_once('.').unwrap_or((percent, ""));
                (whole, fraction, 4)
            }
            None => {
                let (whole, fraction) = text.split_once('.').ok_or_else(error)?;
                (whole, fraction, 6)
            }
        };
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() > 2 || fraction.len() > places {
            return Err(error());
        }
        let digits = format!("{whole}{fraction:0<places$}");
        let millionths: u32 = digits.parse().map_err(|_| error())?;
        if (1..WHOLE).contains(&millionths) {
            return Ok(Self(millionths));
        }
        Err(error())
    }
}

impl fmt::Display for Quantile {
    /// As people call it: `p99`, `p99.9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("p{}.{:04}", self.0 / 10_000, self.0 % 10_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Quantile {
    /// From 0 to 1.
    pub fn ratio(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }
}

/// What lies in the bucket of a quantile and above it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tail {
    /// The quantile in seconds: the middle of its bucket.
    pub value: f64,
    /// What lies there is longer than this: the bucket's lower bound.
    pub above: f64,
    /// How many there are.
    pub count: u64,
}

/// The tail of a histogram; all zero if that is empty.
pub fn tail(histogram: &Histogram, quantile: Quantile) -> Tail {
    let all = count(histogram);
    if all == 0 {
        return Tail::default();
    }
    let rank = (u128::from(all) * u128::from(quantile.0)).div_ceil(u128::from(WHOLE));
    let mut seen = u128::from(histogram.zero);
    if seen >= rank {
        return Tail {
            // Nothing is shorter than nothing.
            above: -1.0,
            value: 0.0,
            count: all,
        };
    }
    for (index, count) in &histogram.buckets {
        let before = seen;
        seen += u128::from(*count);
        if seen >= rank {
            return Tail {
                value: middle(*index),
                above: Histogram::upper_bound(index.saturating_sub(1)),
                count: u64::try_from(u128::from(all).saturating_sub(before)).unwrap_or(u64::MAX),
            };
        }
    }
    Tail {
        value: f64::INFINITY,
        above: Histogram::upper_bound(Histogram::LAST_INDEX),
        count: histogram.overflow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_as_people_write_them() {
        for (text, name) in [
            ("0.99", "p99"),
            (".5", "p50"),
            ("0.999", "p99.9"),
            ("p99", "p99"),
            ("p99.99", "p99.99"),
            ("p5", "p5"),
            ("0.000001", "p0.0001"),
        ] {
            let quantile: Quantile = text.parse().unwrap();
            assert_eq!(quantile.to_string(), name, "{text}");
            assert_eq!(name.parse::<Quantile>().unwrap(), quantile);
        }
        for text in [
            "",
            "p",
            "99",
            "1.0",
            "0.0",
            "p100",
            "0.9999999",
            "-0.5",
            "0.9x",
            "NaN",
            "p0",
        ] {
            assert!(text.parse::<Quantile>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_tail_begins_with_the_bucket_of_the_quantile() {
        let histogram = Histogram {
            sum_ns: 0,
            zero: 10,
            buckets: vec![(-8, 85), (0, 4)],
            overflow: 1,
            exemplars: Vec::new(),
        };
        let tail = |text: &str| tail(&histogram, text.parse().unwrap());
        assert_eq!(tail("p10").count, 100);
        let median = Tail {
            value: middle(-8),
            above: Histogram::upper_bound(-9),
            count: 90,
        };
        assert_eq!(tail("p50"), median);
        assert_eq!(tail("p99").count, 5);
        assert_eq!(
            (tail("p99.9").value, tail("p99.9").count),
            (f64::INFINITY, 1)
        );
        assert_eq!(
            super::tail(&Histogram::default(), "p99".parse().unwrap()),
            Tail::default()
        );
    }

    #[test]
    fn hostile_counts_do_not_overflow() {
        let full = Histogram {
            sum_ns: u64::MAX,
            zero: u64::MAX,
            buckets: vec![(i32::MIN, u64::MAX), (i32::MAX, u64::MAX)],
            overflow: u64::MAX,
            exemplars: Vec::new(),
        };
        assert_eq!(tail(&full, "p99".parse().unwrap()).count, u64::MAX);
    }
}
