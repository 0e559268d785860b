//! What can be exported: metric families with their series.

use std::{borrow::Cow, sync::Arc};

use serde::{Deserialize, Serialize};

/// What a family's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Only grows while the process lives; its exported name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution of durations.
    Histogram,
}

/// Base unit of a family, which is also the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A share between 0 and 1.
    Ratio,
    /// A count of things; the name says of which.
    None,
}

impl Unit {
    /// The unit's name as OpenMetrics writes it; `None` for counts.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Seconds => Some("seconds"),
            Self::Bytes => Some("bytes"),
            Self::Ratio => Some("ratio"),
            Self::None => None,
        }
    }
}

/// A metric family: one name, one help text, many series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Family {
    /// Full name with its unit, without `_total`:
    /// `kldtrace_sched_runqueue_latency_seconds`.
    pub name: Cow<'static, str>,
    /// One sentence for people.
    pub help: Cow<'static, str>,
    /// What the numbers are.
    pub kind: Kind,
    /// Base unit.
    pub unit: Unit,
    /// The series, each with its own labels.
    pub series: Vec<Series>,
}

/// One series of a family.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Label names and values, in the order of the catalogue. Values may hold
    /// any text: encoders escape.
    pub labels: Vec<(Cow<'static, str>, Arc<str>)>,
    /// The number or distribution.
    pub value: Value,
}

/// A series' value. The family's [`Kind`] decides between counter and gauge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Value {
    /// A whole number.
    Integer(u64),
    /// Any other number.
    Float(f64),
    /// A distribution.
    Histogram(Histogram),
}

/// A distribution of durations in buckets of schema 3 (a factor of 2^(1/8)).
///
/// Bucket `k` holds durations in (2^((k-1)/8) s, 2^(k/8) s].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Histogram {
    /// Exact sum, in nanoseconds.
    pub sum_ns: u64,
    /// Durations of at most [`Histogram::ZERO_THRESHOLD`].
    pub zero: u64,
    /// Index and count of each bucket that is not empty, in ascending order.
    /// Indices run from -239 to 80.
    pub buckets: Vec<(i32, u64)>,
    /// Durations longer than 2^10 s (1024 s), the last bucket's upper bound.
    pub overflow: u64,
    /// Durations of which an event tells more, the newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exemplars: Vec<Exemplar>,
}

/// One of the durations in a histogram, and the event that tells of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exemplar {
    /// [`Event::id`].
    pub event: u64,
    /// The duration.
    pub seconds: f64,
    /// When it ended, in nanoseconds since 1970 (UTC).
    pub time_ns: u64,
}

impl Histogram {
    /// Prometheus' name for the resolution: 2^3 buckets per factor of two.
    pub const SCHEMA: i32 = 3;
    /// Upper bound of the zero bucket in seconds: 2^-30 s, 0.93 ns.
    pub const ZERO_THRESHOLD: f64 = 1.0 / 1_073_741_824.0;
    /// Lowest bucket index.
    pub const FIRST_INDEX: i32 = -239;
    /// Highest bucket index; its upper bound is 1024 s.
    pub const LAST_INDEX: i32 = 80;

    /// Number of observations.
    pub fn count(&self) -> u64 {
        self.zero + self.overflow + self.buckets.iter().map(|(_, count)| count).sum::<u64>()
    }

    /// Sum in seconds.
    pub fn sum_seconds(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }

    /// Upper bound of bucket `index` in seconds.
    pub fn upper_bound(index: i32) -> f64 {
        (f64::from(index) / 8.0).exp2()
    }
}

/// A rare fact worth telling: a slow operation, a handshake, a drop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one for each event of this process; 0 until it is stored.
    pub id: u64,
    /// When it happened, in nanoseconds since 1970 (UTC).
    pub time_ns: u64,
    /// The group of signals that it belongs to: `zfs`.
    pub subject: Cow<'static, str>,
    /// What happened: `slow_operation`.
    pub kind: Cow<'static, str>,
    /// Labels from closed sets, as those of metrics: `dataset`, `op`.
    pub labels: Vec<(Cow<'static, str>, Arc<str>)>,
    /// What has no place in a metric: sizes, times, process ids, addresses.
    pub fields: Vec<(Cow<'static, str>, Field)>,
    /// One sentence for people.
    pub message: String,
}

impl Field {
    /// The number, if it is a time: those are fractions, in seconds.
    pub fn as_seconds(&self) -> Option<f64> {
        match self {
            Self::Float(seconds) => Some(*seconds),
            Self::Integer(_) | Self::Text(_) => None,
        }
    }
}

/// A value of an event's field. Times are in seconds, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// A whole number.
    Integer(u64),
    /// Any other number.
    Float(f64),
    /// Text.
    Text(Arc<str>),
}
