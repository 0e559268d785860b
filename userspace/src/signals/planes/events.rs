//! Packets that were dropped, or would be, as events.

use std::{borrow::Cow, ffi::CStr, sync::Arc};

use kldtrace_abi::plane::{Family, count::Told};
use kldtrace_exporters::model::{Event, Field};

use super::{named::Named, read::Verdict};
use crate::{
    planes::{explain, policy},
    signals::clock::Clock,
};

/// How much of what is dropped is told.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sampled {
    /// Packets that were not told of, as of the last look.
    untold: u64,
}

impl Sampled {
    /// From now on.
    pub fn from(untold: u64) -> Self {
        Self { untold }
    }

    /// The share of all dropped packets since the last look that so many are
    /// which were told. `untold`: those that were not, from the beginning.
    pub fn among(&mut self, told: u64, untold: u64) -> f64 {
        let before = std::mem::replace(&mut self.untold, untold);
        let all = told + untold.saturating_sub(before);
        if all == 0 {
            return 1.0;
        }
        told as f64 / all as f64
    }
}

/// A told packet as an event. `sampled`: the share of packets that are told.
pub fn event(told: &Told, named: &Named, sampled: f64, clock: &Clock) -> Event {
    let Told {
        facts,
        outcome,
        interface,
        generation,
        ..
    } = told;
    let plane = named.plane(told.plane as u8);
    let rule = named.rule(outcome.counter).map(|rule| rule.name.clone());
    let rule = rule.unwrap_or_else(|| "".into());
    let interface: Arc<str> = name_of(*interface).into();
    let verdict = Verdict::of(outcome.action).as_str();
    let reason = outcome.reason.as_str();
    let words = explain::words(facts);
    let mut fields: Vec<(Cow<'static, str>, Field)> = Vec::new();
    let text = |text: String| Field::Text(text.as_str().into());
    let v6 = facts.family == Family::V6;
    if v6 || facts.family == Family::V4 {
        let source = policy::ip(facts.source, v6).to_string();
        let destination = policy::ip(facts.destination, v6).to_string();
        fields.push(("source".into(), text(source)));
        fields.push(("destination".into(), text(destination)));
        fields.push(("protocol".into(), Field::Integer(facts.protocol.into())));
        if facts.source_port != 0 || facts.destination_port != 0 {
            let port = |port: u16| Field::Integer(port.into());
            fields.push(("source_port".into(), port(facts.source_port)));
            fields.push(("destination_port".into(), port(facts.destination_port)));
        }
        if facts.tcp_flags != 0 {
            fields.push(("tcp_flags".into(), text(flags(facts.tcp_flags))));
        }
    }
    fields.push(("bytes".into(), Field::Integer(facts.length.into())));
    fields.push(("packet".into(), text(words.clone())));
    fields.push(("generation".into(), Field::Integer((*generation).into())));
    fields.push(("sampled".into(), Field::Float(sampled)));
    let did = match outcome.action {
        kldtrace_abi::plane::Action::Pass => "passed",
        kldtrace_abi::plane::Action::Drop => "dropped",
        kldtrace_abi::plane::Action::WouldDrop => "would be dropped",
    };
    let by = if rule.is_empty() {
        String::new()
    } else {
        format!(" by {rule}")
    };
    let why = reason.replace('_', " ");
    Event {
        id: 0,
        time_ns: clock.wall(told.at),
        subject: "planes".into(),
        kind: "packet".into(),
        message: format!("{words} {did} on {interface} ({plane}){by}: {why}"),
        labels: vec![
            ("plane".into(), plane),
            ("interface".into(), interface),
            ("rule".into(), rule),
            ("verdict".into(), verdict.into()),
            ("reason".into(), reason.into()),
        ],
        fields,
    }
}

/// Flags of TCP as tcpdump writes them (RFC 9293, 3.1).
fn flags(bits: u8) -> String {
    const NAMES: [(u8, &str); 8] = [
        (0x02, "S"),
        (0x01, "F"),
        (0x08, "P"),
        (0x04, "R"),
        (0x20, "U"),
        (0x40, "E"),
        (0x80, "W"),
        (0x10, "."),
    ];
    let set = NAMES.iter().filter(|(bit, _)| bits & bit != 0);
    set.map(|(_, name)| *name).collect()
}

/// The name of an interface of this network namespace.
fn name_of(index: u32) -> String {
    let mut name = [0 as libc::c_char; libc::IF_NAMESIZE];
    // SAFETY: there is room for the longest name and its zero.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return format!("index {index}");
    }
    // SAFETY: it found one, so there is a text with a zero at its end.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use kldtrace_abi::plane::{Action, Facts, Outcome, Reason};

    use super::*;

    fn told(facts: Facts, reason: Reason) -> Told {
        Told {
            at: 5,
            facts,
            outcome: Outcome {
                action: Action::WouldDrop,
                reason,
                ..Outcome::default()
            },
            interface: 1,
            generation: 7,
            plane: 3,
        }
    }

    #[test]
    fn a_packet_is_told_with_its_five_tuple() {
        let mut facts = explain::packet("tcp 10.0.0.1:4000 > 10.0.0.2:22 ack").unwrap();
        facts.tcp_flags = 0x12;
        let clock = Clock::starting_at(100);
        let event = event(
            &told(facts, Reason::Default),
            &Named::default(),
            0.5,
            &clock,
        );
        assert!(crate::catalogue::told(&event).is_some(), "{event:?}");
        assert_eq!(
            event.message,
            "tcp 10.0.0.1:4000 > 10.0.0.2:22 ack would be dropped on lo (plane 3): default"
        );
        assert_eq!(event.time_ns, 105);
        let field = |name: &str| {
            let found = event.fields.iter().find(|(known, _)| known == name);
            found.map(|(_, field)| field.clone())
        };
        assert_eq!(field("source"), Some(Field::Text("10.0.0.1".into())));
        assert_eq!(field("destination_port"), Some(Field::Integer(22)));
        assert_eq!(field("tcp_flags"), Some(Field::Text("S.".into())));
        assert_eq!(field("sampled"), Some(Field::Float(0.5)));
    }

    #[test]
    fn what_is_no_ip_has_no_addresses() {
        let clock = Clock::starting_at(0);
        let told = told(Facts::default(), Reason::NotIp);
        let event = event(&told, &Named::default(), 1.0, &clock);
        assert!(crate::catalogue::told(&event).is_some(), "{event:?}");
        assert_eq!(
            event.message,
            "a frame without IP would be dropped on lo (plane 3): not ip"
        );
    }

    #[test]
    fn the_share_is_of_each_look() {
        let mut sampled = Sampled::from(10);
        assert!((sampled.among(50, 60) - 0.5).abs() < 1e-9);
        assert!((sampled.among(3, 60) - 1.0).abs() < 1e-9);
        assert!((sampled.among(0, 60) - 1.0).abs() < 1e-9);
    }
}
