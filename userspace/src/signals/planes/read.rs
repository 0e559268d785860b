//! What planes and rules have counted, by the labels of metrics.

use std::sync::Arc;

use kldtrace_abi::plane::{Action, Reason, count::Count};

use super::named::Named;
use crate::{planes::install::Counts, signals::table::OTHER_LABEL};

/// The value of the label `verdict`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It passed.
    Pass,
    /// It was dropped.
    Drop,
    /// It passed in audit mode, and would be dropped.
    WouldDrop,
    /// It was over a rule's rate: dropped, or in audit mode would be.
    Limited,
}

impl Verdict {
    /// All of them, in the order of a rule's counters.
    pub const ALL: [Self; 4] = [Self::Pass, Self::Drop, Self::WouldDrop, Self::Limited];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::WouldDrop => "would_drop",
            Self::Limited => "limited",
        }
    }

    /// That of an action.
    pub const fn of(action: Action) -> Self {
        match action {
            Action::Pass => Self::Pass,
            Action::Drop => Self::Drop,
            Action::WouldDrop => Self::WouldDrop,
        }
    }
}

/// What was read of planes.
#[derive(Clone, Debug, Default)]
pub struct PlanesRead {
    /// The planes, in the order of the policy.
    pub planes: Vec<PlaneRead>,
    /// The rules that have counted something.
    pub rules: Vec<RuleRead>,
    /// Rules without series of their own.
    pub folded: u64,
    /// Interfaces of planes.
    pub attached: Vec<AttachedRead>,
    /// The flows of each family.
    pub flows: Vec<FlowsRead>,
    /// The policy that is applied.
    pub generation: u32,
    /// When it was applied, in seconds since 1970.
    pub applied: u64,
    /// Dropped packets that were not told of.
    pub untold: u64,
}

/// A plane.
#[derive(Clone, Debug)]
pub struct PlaneRead {
    /// Its name.
    pub name: Arc<str>,
    /// Whether its drops are carried out.
    pub enforcing: bool,
    /// What became of packets, and why: all that can be.
    pub counts: Vec<(Verdict, Reason, Count)>,
}

/// A rule.
#[derive(Clone, Debug)]
pub struct RuleRead {
    /// The plane whose packets it judges.
    pub plane: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Packets, in the order of [`Verdict::ALL`].
    pub packets: [u64; 4],
}

/// An interface of a plane.
#[derive(Clone, Debug)]
pub struct AttachedRead {
    /// The plane.
    pub plane: Arc<str>,
    /// The interface.
    pub interface: String,
    /// Where its programs run; `None`: they are not attached.
    pub mode: Option<&'static str>,
}

/// The flows of a family.
#[derive(Clone, Copy, Debug)]
pub struct FlowsRead {
    /// The family.
    pub family: &'static str,
    /// Flows that were seen in the last two minutes.
    pub recent: u64,
    /// Others that are still kept.
    pub older: u64,
    /// Flows that can be kept.
    pub capacity: u64,
}

/// What can become of a packet for a reason, of those that a plane counts
/// itself and those that its rules count.
const CAN_BE: [(Verdict, Reason); 25] = [
    (Verdict::Pass, Reason::Default),
    (Verdict::Pass, Reason::Rule),
    (Verdict::Pass, Reason::Floor),
    (Verdict::Pass, Reason::Established),
    (Verdict::Pass, Reason::Always),
    (Verdict::Pass, Reason::NotIp),
    (Verdict::Drop, Reason::Default),
    (Verdict::Drop, Reason::Rule),
    (Verdict::Drop, Reason::Malformed),
    (Verdict::Drop, Reason::NotIp),
    (Verdict::Drop, Reason::Fragment),
    (Verdict::Drop, Reason::Blocked),
    (Verdict::Drop, Reason::Cross),
    (Verdict::Drop, Reason::Rate),
    (Verdict::Drop, Reason::WireGuard),
    (Verdict::WouldDrop, Reason::Default),
    (Verdict::WouldDrop, Reason::Rule),
    (Verdict::WouldDrop, Reason::Malformed),
    (Verdict::WouldDrop, Reason::NotIp),
    (Verdict::WouldDrop, Reason::Fragment),
    (Verdict::WouldDrop, Reason::Blocked),
    (Verdict::WouldDrop, Reason::Cross),
    (Verdict::WouldDrop, Reason::Rate),
    (Verdict::WouldDrop, Reason::WireGuard),
    (Verdict::Limited, Reason::Rate),
];

impl PlanesRead {
    /// What was counted under a policy; of so many rules with series of their
    /// own.
    ///
    /// # Errors
    /// When the kernel refuses the map.
    pub fn of(counts: &Counts, named: &Named, series: usize) -> anyhow::Result<Self> {
        let mut planes: Vec<_> = named
            .policy
            .planes
            .iter()
            .map(|plane| PlaneRead {
                name: plane.name.as_str().into(),
                enforcing: plane.enforce && !named.opened,
                counts: CAN_BE
                    .iter()
                    .map(|(verdict, reason)| (*verdict, *reason, Count::default()))
                    .collect(),
            })
            .collect();
        let counted = counts.all()?;
        for (plane, read) in named.policy.planes.iter().zip(&mut planes) {
            for reason in Reason::ALL {
                for action in [Action::Pass, Action::Drop, Action::WouldDrop] {
                    let count = counted.plane(plane.number, reason, action)?;
                    read.add(Verdict::of(action), reason, count);
                }
            }
        }
        let mut read = Self {
            generation: named.generation,
            applied: named.applied,
            ..Self::default()
        };
        for (at, rule) in named.rules() {
            let counts = counted.rule(at)?;
            for (verdict, count) in Verdict::ALL.into_iter().zip(counts) {
                let reason = match verdict {
                    Verdict::Limited => Reason::Rate,
                    _ => reason_of(&rule.kind),
                };
                if let Some(plane) = planes.iter_mut().find(|plane| plane.name == rule.plane) {
                    plane.add(verdict, reason, count);
                }
            }
            let packets = counts.map(|count| count.packets);
            if packets != [0; 4] {
                read.rule(&rule.plane, &rule.name, packets, series);
            }
        }
        read.planes = planes;
        Ok(read)
    }

    /// Adds a rule, to that for all others once there are enough.
    fn rule(&mut self, plane: &Arc<str>, name: &Arc<str>, packets: [u64; 4], series: usize) {
        if self.rules.len() < series {
            self.rules.push(RuleRead {
                plane: plane.clone(),
                name: name.clone(),
                packets,
            });
            return;
        }
        self.folded += 1;
        let others = |rule: &&mut RuleRead| *rule.plane == *OTHER_LABEL;
        match self.rules.last_mut().filter(others) {
            Some(others) => {
                for (sum, more) in others.packets.iter_mut().zip(packets) {
                    *sum += more;
                }
            }
            None => self.rules.push(RuleRead {
                plane: OTHER_LABEL.into(),
                name: OTHER_LABEL.into(),
                packets,
            }),
        }
    }
}

impl PlaneRead {
    fn add(&mut self, verdict: Verdict, reason: Reason, more: Count) {
        let mut known = self.counts.iter_mut();
        match known.find(|(one, why, _)| (*one, *why) == (verdict, reason)) {
            Some((_, _, count)) => {
                count.packets += more.packets;
                count.bytes += more.bytes;
            }
            // It can only be by a damaged image.
            None if more.packets > 0 => self.counts.push((verdict, reason, more)),
            None => {}
        }
    }
}

fn reason_of(kind: &str) -> Reason {
    let known = Reason::ALL.into_iter().find(|one| one.as_str() == kind);
    known.unwrap_or(Reason::Rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_beyond_the_limit_are_one() {
        let mut read = PlanesRead::default();
        let plane: Arc<str> = "p".into();
        for number in 0..5 {
            let name: Arc<str> = format!("rule {number}").into();
            read.rule(&plane, &name, [number, 1, 0, 0], 2);
        }
        assert_eq!(read.rules.len(), 3);
        assert_eq!(
            (&*read.rules[2].plane, &*read.rules[2].name),
            ("other", "other")
        );
        assert_eq!(read.rules[2].packets, [2 + 3 + 4, 3, 0, 0]);
        assert_eq!(read.folded, 3);
    }

    #[test]
    fn sums_of_a_plane_are_by_verdict_and_reason() {
        let mut plane = PlaneRead {
            name: "p".into(),
            enforcing: true,
            counts: vec![(Verdict::Drop, Reason::Cross, Count::default())],
        };
        let one = Count {
            packets: 1,
            bytes: 60,
        };
        plane.add(Verdict::Drop, Reason::Cross, one);
        plane.add(Verdict::Drop, Reason::Cross, one);
        plane.add(Verdict::Drop, Reason::Image, one);
        plane.add(Verdict::Pass, Reason::Image, Count::default());
        let packets: Vec<_> = plane.counts.iter().map(|(_, _, c)| c.packets).collect();
        assert_eq!(packets, [2, 1]);
    }
}
