//! An explanation in sentences.

use std::fmt::Write as _;

use super::{Basis, Evidence, Group, Quantile, Share, Vdevs, value};
use crate::view::text::{count, duration, harmless};

/// Stages with less of the time than this are not in the sentence.
const MENTIONED: f64 = 0.01;

/// The least that `[zfs] slow_operation` can be, in seconds.
const LEAST_THRESHOLD: f64 = 0.001;

/// A stage as people call it.
fn stage(name: &str) -> &str {
    match name {
        "arc_miss" => "reads that the ARC did not have",
        "zil_commit" => "ZIL commit",
        "throttle" => "write throttle",
        "txg_wait" => "waiting for a transaction group",
        "other_wait" => "waiting for another thread's read or a lock",
        "runqueue" => "run queue",
        "cpu" => "CPU",
        other => other,
    }
}

impl Group {
    /// Which operations, how slow, how many.
    pub fn headline(&self, quantile: Quantile) -> String {
        let label = |name| value(&self.labels, name).map(|value| harmless(value));
        let mut line = label("op").unwrap_or_else(|| "operations".to_owned());
        if let Some(dataset) = label("dataset") {
            let _ = write!(line, " on {dataset}");
        } else if let Some(pool) = label("pool") {
            let _ = write!(line, " on pool {pool}");
        }
        let _ = write!(
            line,
            ": {quantile} {} over {} operation{}",
            duration(self.quantile),
            count(self.count),
            if self.count == 1 { "" } else { "s" }
        );
        line
    }

    /// Where the time went, what is known of it, and what that rests on.
    pub fn sentences(&self, quantile: Quantile) -> Vec<String> {
        let Some((first, rest)) = self.stages.split_first() else {
            return vec![match self.basis {
                Basis::None => "Where the time went is not measured: zfs.stage_latency is absent \
                                (kldtrace doctor says why)."
                    .to_owned(),
                _ => "It took no time that a clock can tell.".to_owned(),
            }];
        };
        let mut evidence: Vec<&Evidence> = self.evidence.iter().collect();
        let own = evidence.iter().position(|one| one.is_of(first.stage));
        let own = own.map(|at| evidence.remove(at));
        let mut sentences = vec![self.main(first, own, rest, quantile)];
        sentences.extend(evidence.into_iter().map(|one| one.sentence(quantile)));
        sentences.push(self.footnote(quantile));
        sentences
    }

    fn main(
        &self,
        first: &Share,
        evidence: Option<&Evidence>,
        rest: &[Share],
        quantile: Quantile,
    ) -> String {
        let mut sentence = match self.basis {
            Basis::Operation { seconds, known, .. } => {
                let which = match known {
                    1 => format!("of the one at or above {quantile}"),
                    _ => format!("of the middle one of {known} at or above {quantile}"),
                };
                format!(
                    "{} of the {} {which} was {}",
                    duration(first.seconds),
                    duration(seconds),
                    stage(first.stage)
                )
            }
            Basis::Sums | Basis::None => format!(
                "{} of the {} that all of them took together was {}",
                percent(first.share),
                duration(self.sum_ns as f64 / 1e9),
                stage(first.stage)
            ),
        };
        match evidence {
            Some(Evidence::LogWrites(vdevs) | Evidence::Reads(vdevs)) => {
                let _ = write!(
                    sentence,
                    ", waiting for vdev {} ({})",
                    vdevs.name(),
                    vdevs.times(quantile)
                );
            }
            Some(Evidence::Syncs { count, seconds }) => {
                let _ = write!(
                    sentence,
                    ", while {count} transaction group{} synced, {quantile} {}",
                    if *count == 1 { "" } else { "s" },
                    duration(*seconds)
                );
            }
            Some(Evidence::Writes(_)) | None => {}
        }
        let rest = rest.iter().filter(|one| one.share >= MENTIONED).take(3);
        let rest: Vec<_> = rest
            .map(|one| match self.basis {
                Basis::Operation { .. } => {
                    format!("{} {}", stage(one.stage), duration(one.seconds))
                }
                Basis::Sums | Basis::None => {
                    format!("{} {}", stage(one.stage), percent(one.share))
                }
            })
            .collect();
        if !rest.is_empty() {
            let _ = write!(sentence, "; {}", rest.join(", "));
        }
        sentence.push('.');
        sentence
    }

    /// What the numbers are of, and what they are not.
    fn footnote(&self, quantile: Quantile) -> String {
        match self.basis {
            Basis::Operation { event, known, .. } => {
                let mut note = format!(
                    "Basis: one operation (event {event}), whose stages were measured in it and \
                     add up to it"
                );
                if known < self.tail {
                    let _ = write!(note, "; {known} of {} were seen one by one", self.tail);
                }
                note + ". Vdevs' times are of all their requests meanwhile."
            }
            Basis::Sums | Basis::None => {
                let mut note = "Basis: sums over all operations; the slowest may have lost their \
                                time elsewhere."
                    .to_owned();
                if self.quantile > LEAST_THRESHOLD {
                    let _ = write!(
                        note,
                        " For those at {quantile} themselves, set [zfs] slow_operation below {}.",
                        duration(self.quantile)
                    );
                }
                note
            }
        }
    }
}

impl Evidence {
    /// Whether it belongs to a stage.
    fn is_of(&self, stage: &str) -> bool {
        match self {
            Self::LogWrites(_) => stage == "zil_commit",
            Self::Reads(_) => stage == "arc_miss",
            Self::Syncs { .. } => stage == "throttle" || stage == "txg_wait",
            // It says more of what the groups waited for in turn.
            Self::Writes(_) => false,
        }
    }

    fn sentence(&self, quantile: Quantile) -> String {
        match self {
            Self::LogWrites(vdevs) => vdevs.sentence("Log writes", quantile),
            Self::Reads(vdevs) => vdevs.sentence("Reads that were waited for", quantile),
            Self::Writes(vdevs) => vdevs.sentence("Writes of transaction groups", quantile),
            Self::Syncs { count, seconds } => format!(
                "Transaction groups synced meanwhile: {count}, {quantile} {}.",
                duration(*seconds)
            ),
        }
    }
}

impl Vdevs {
    fn name(&self) -> String {
        let mut name = harmless(&self.vdev);
        match self.slog {
            Some(true) => name += " (SLOG)",
            Some(false) => name += " (no SLOG)",
            None => {}
        }
        if self.others > 0 {
            let _ = write!(name, " and {} more", self.others);
        }
        name
    }

    fn times(&self, quantile: Quantile) -> String {
        format!(
            "{} requests, {quantile}: queue {}, device {}",
            count(self.count),
            duration(self.queue),
            duration(self.device)
        )
    }

    fn sentence(&self, what: &str, quantile: Quantile) -> String {
        format!("{what} went to {}: {}.", self.name(), self.times(quantile))
    }
}

/// A share as people write it.
pub fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}
