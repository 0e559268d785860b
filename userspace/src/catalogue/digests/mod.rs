//! What the daemon itself makes of its numbers, for those who ask often and of many nodes.
//!
//! A rate of a native histogram costs Prometheus twenty times what a rate of a counter does, and a
//! quantile of 500 nodes' histograms more than it has. Each node knows its own for nothing. It also
//! adds up counters over labels that nobody asks for, before each of them is a series elsewhere.

mod table;

use std::time::Duration;

use kldtrace_exporters::model::{Kind, Unit};

use super::{Cost, Signal};

pub use table::DIGESTS;

/// Families that are made of one signal: a histogram, a counter, or times since 1970. They come and
/// go with it.
#[derive(Debug)]
pub struct Digest {
    /// The signal's name.
    pub of: &'static str,
    /// The labels of it that are kept; the series that differ in others only are added up.
    pub labels: &'static [&'static str],
    /// Which of its series count.
    pub only: Only,
    /// What is made of them; all that looks back looks back as far.
    pub makes: &'static [Made],
}

/// Which series of a signal count.
#[derive(Clone, Copy, Debug)]
pub enum Only {
    /// All.
    All,
    /// Those whose label has one of these values.
    Is(&'static str, &'static [&'static str]),
    /// Those whose label has another than these.
    IsNot(&'static str, &'static [&'static str]),
}

/// One family.
#[derive(Debug)]
pub struct Made {
    /// Exported family, without `_total`.
    pub metric: &'static str,
    /// One sentence for people, also the `# HELP` line.
    pub help: &'static str,
    /// How it comes out of a histogram.
    pub what: What,
}

/// How a number comes out of a histogram; a counter is one of which only the count is known, or only
/// the sum if it counts seconds.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// The number of durations, or the counter.
    Count,
    /// How much time they took.
    Time,
    /// The durations that were longer than an objective; the label `over` has it, in seconds.
    Misses(Objective),
    /// The count of a window, in the signal's unit; nothing where it is 0. What the daemon counted
    /// before the first scrape is in it, which no rate of a counter sees.
    Recent(Window),
    /// The same for each second of the window.
    PerSecond(Window),
    /// How much time they took in each second of the window: how many went on at once, on average.
    AtOnce(Window),
    /// The mean of a window's durations; nothing where there were none.
    Mean(Window),
    /// A quantile of a window's durations; nothing where there were none. 990: 99 of 100 are at
    /// most this long.
    Quantile(u16, Window),
    /// Not of a histogram: times that are longer ago than this, as they are; nothing where they
    /// are not.
    LongerAgo(Duration),
}

/// What should take no longer: a key of `[objectives]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Objective {
    /// `zfs_operation`.
    ZfsOperation,
    /// `tcp_connect`.
    TcpConnect,
}

/// How far back something looks, and at most a fifth further; to when somebody asked last, if that
/// is longer ago; and no further than the daemon began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// `[objectives] look_back`.
    Usual,
    /// `[objectives] trouble`.
    Trouble,
    /// So many minutes, as what is looked at has a time of its own.
    Minutes(u64),
}

/// The label of [`What::Misses`].
pub const OVER: &str = "over";

impl Digest {
    /// The signal that it is made of.
    ///
    /// # Panics
    /// Never: the tests look each of them up.
    pub fn signal(&self) -> &'static Signal {
        super::find(self.of).unwrap_or_else(|| unreachable!("no signal {}", self.of))
    }

    /// Whether the kernel counts it by itself, and did before there was a daemon.
    pub fn was_counted_before(&self) -> bool {
        let signal = self.signal();
        signal.cost == Cost::Read && !signal.hooks.is_empty()
    }

    /// Whether a value of a label is of a series that counts.
    pub fn counts(&self, label: &str, value: &str) -> bool {
        match self.only {
            Only::All => true,
            Only::Is(name, wanted) => label != name || wanted.contains(&value),
            Only::IsNot(name, unwanted) => label != name || !unwanted.contains(&value),
        }
    }

    /// The labels of one of its families, in order of output.
    pub fn labels_of(&self, made: &Made) -> Vec<&'static str> {
        let over = matches!(made.what, What::Misses(_)).then_some(OVER);
        self.labels.iter().copied().chain(over).collect()
    }

    /// The base unit of one of its families.
    pub fn unit_of(&self, made: &Made) -> Unit {
        match made.what {
            What::Time | What::Mean(_) | What::Quantile(..) | What::LongerAgo(_) => Unit::Seconds,
            What::Recent(_) if self.signal().kind == Kind::Counter => self.signal().unit,
            _ => Unit::None,
        }
    }
}

impl What {
    /// How far back it looks; `None`: it does not.
    pub fn window(self) -> Option<Window> {
        match self {
            Self::Recent(window)
            | Self::PerSecond(window)
            | Self::AtOnce(window)
            | Self::Mean(window)
            | Self::Quantile(_, window) => Some(window),
            Self::Count | Self::Time | Self::Misses(_) | Self::LongerAgo(_) => None,
        }
    }
}

impl Made {
    /// Counter or gauge.
    pub fn kind(&self) -> Kind {
        match self.what {
            What::Count | What::Time | What::Misses(_) => Kind::Counter,
            _ => Kind::Gauge,
        }
    }

    /// The name of the exported family: counters end in `_total`.
    pub fn exported_name(&self) -> String {
        super::exported_name(self.metric, self.kind())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::catalogue::{Subject, signals};

    #[test]
    fn digests_are_of_signals_and_their_labels() {
        for digest in DIGESTS {
            let signal = digest.signal();
            for made in digest.makes {
                let fits = match (signal.kind, signal.unit) {
                    (Kind::Histogram, _) => !matches!(made.what, What::LongerAgo(_)),
                    (Kind::Counter, Unit::Seconds) => matches!(made.what, What::Time),
                    (Kind::Counter, _) => {
                        matches!(
                            made.what,
                            What::Count | What::Recent(_) | What::PerSecond(_)
                        )
                    }
                    // It is one series for each of the signal's.
                    (Kind::Gauge, _) => {
                        matches!(made.what, What::LongerAgo(_)) && digest.labels == signal.labels
                    }
                };
                assert!(fits, "{}", made.metric);
            }
            let label = match digest.only {
                Only::All => None,
                Only::Is(label, _) | Only::IsNot(label, _) => Some(label),
            };
            for label in digest.labels.iter().copied().chain(label) {
                assert!(signal.labels.contains(&label), "{}: {label}", digest.of);
            }
        }
    }

    #[test]
    fn a_digest_has_one_window() {
        for digest in DIGESTS {
            let mut windows = digest.makes.iter().filter_map(|made| made.what.window());
            let first = windows.next();
            assert!(windows.all(|other| Some(other) == first), "{}", digest.of);
        }
    }

    #[test]
    fn names_are_unique_and_well_formed() {
        let mut metrics: HashSet<_> = signals().map(|signal| signal.metric).collect();
        for digest in DIGESTS {
            let prefix = match digest.signal().subject {
                Subject::Own => "kldtrace_".to_owned(),
                subject => format!("kldtrace_{}_", subject.as_str()),
            };
            for made in digest.makes {
                assert!(metrics.insert(made.metric), "{} twice", made.metric);
                assert!(made.metric.starts_with(&prefix), "{}", made.metric);
                assert!(!made.metric.ends_with("_total"), "{}", made.metric);
                if let Some(unit) = digest.unit_of(made).as_str() {
                    assert!(made.metric.ends_with(unit), "{}", made.metric);
                }
                assert!(made.help.ends_with('.'), "{}", made.metric);
            }
        }
    }
}
