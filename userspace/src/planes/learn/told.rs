//! What is told of packets: as the kernel tells it, and as the daemon's events
//! have it.

use kldtrace_abi::plane::{Action, Facts, Outcome, Reason, count::Told};
use kldtrace_exporters::model::{Event, Field};

use super::Learner;
use crate::{planes::explain, signals::planes::Verdict};

/// Why something that was told is not learned from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Passed {
    /// It is of another policy.
    Another,
    /// It is not understood.
    Unread,
}

impl Learner<'_> {
    /// Takes in what the kernel tells under a generation of the policy.
    ///
    /// # Errors
    /// If it is of another one.
    pub fn told(&mut self, told: &Told, generation: u32) -> Result<(), Passed> {
        let mut planes = self.policy.planes.iter();
        let plane = planes.position(|plane| u32::from(plane.number) == told.plane);
        if told.generation != generation {
            return Err(Passed::Another);
        }
        let plane = plane.ok_or(Passed::Another)?;
        // Why no rule is proposed is counted there.
        let _ = self.see(plane, &told.facts, &told.outcome);
        Ok(())
    }

    /// Takes in an event of a daemon, in the same way.
    ///
    /// # Errors
    /// If it is of another policy, or no packet.
    pub fn event(&mut self, event: &Event, generation: u32) -> Result<(), Passed> {
        let label = |name: &str| {
            let mut labels = event.labels.iter();
            let label = labels.find(|(known, _)| known == name)?;
            Some(&*label.1)
        };
        let field = |name: &str| {
            let mut fields = event.fields.iter();
            let field = fields.find(|(known, _)| known == name)?;
            Some(&field.1)
        };
        let number = |name: &str| match field(name) {
            Some(Field::Integer(number)) => Some(*number),
            _ => None,
        };
        if event.subject != "planes" || event.kind != "packet" {
            return Err(Passed::Unread);
        }
        if number("generation") != Some(generation.into()) {
            return Err(Passed::Another);
        }
        let plane = label("plane").ok_or(Passed::Unread)?;
        let mut planes = self.policy.planes.iter();
        let plane = planes.position(|one| one.name == plane);
        let plane = plane.ok_or(Passed::Another)?;
        let outcome = outcome(label).ok_or(Passed::Unread)?;
        let words = match field("packet") {
            Some(Field::Text(words)) => explain::packet(words).ok(),
            _ => None,
        };
        // Of what no rule is for, the reason is enough.
        let ruled = matches!(outcome.reason, Reason::Default | Reason::Cross);
        let facts = match words {
            Some(facts) => Facts {
                length: number("bytes").unwrap_or(0) as u32,
                ..facts
            },
            None if ruled => return Err(Passed::Unread),
            None => Facts::default(),
        };
        let _ = self.see(plane, &facts, &outcome);
        Ok(())
    }
}

/// The outcome in an event's labels.
fn outcome<'a>(label: impl Fn(&str) -> Option<&'a str>) -> Option<Outcome> {
    let (verdict, reason) = (label("verdict")?, label("reason")?);
    let actions = [Action::Pass, Action::Drop, Action::WouldDrop];
    let action = actions
        .into_iter()
        .find(|action| Verdict::of(*action).as_str() == verdict)?;
    let reason = Reason::ALL.into_iter().find(|one| one.as_str() == reason)?;
    Some(Outcome {
        action,
        reason,
        ..Outcome::default()
    })
}
