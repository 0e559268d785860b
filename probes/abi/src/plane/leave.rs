//! What leaves: it makes flows ([`super::flow`] says which).
//!
//! All functions take the packet turned ([`Facts::turned`]): as its answer.

use super::{
    Facts, Tables,
    facts::{Family, Malformed},
    flow::{self, Flow, FlowKey},
    outcome::{Action, Outcome, RULE_RATE},
    verdict::{plane, unlimited},
};

/// Notes a packet that leaves on a plane, so that its answers pass.
#[inline(always)]
pub fn leaves<K: Tables>(tables: &mut K, number: u8, answer: &Facts) {
    if let Some(refused) = unknown(tables, number, answer) {
        let outcome = unlimited(tables, number, answer).unwrap_or_default();
        keep(tables, number, answer, refused, outcome);
    }
}

/// The first part of [`leaves`]; `None`: that is all. Else the flow is not
/// known, or was another policy's, which is said.
#[inline(always)]
pub fn unknown<K: Tables>(tables: &mut K, number: u8, answer: &Facts) -> Option<bool> {
    if answer.malformed as u8 != Malformed::No as u8
        || !matches!(answer.family, Family::V4 | Family::V6)
    {
        return None;
    }
    let plane = plane(tables, number)?;
    if plane.own == 0 {
        return None;
    }
    let key = FlowKey::arriving(answer, number)?;
    let now = tables.tick();
    let mut others = false;
    if let Some(flow) = tables.flow(&key) {
        if flow.holds(answer.protocol, plane.generation, now) {
            if flow.see(now) {
                flow::stamp(tables, &key, now);
            }
            return None;
        }
        others = !flow.is_own();
    }
    if flow::begins(answer) {
        flow::keep(tables, &key, Flow::of(0, 0, now));
        return None;
    }
    Some(others)
}

/// The last part of [`leaves`]: keeps the flow, by what the rules say to an
/// answer.
#[inline(always)]
pub fn keep<K: Tables>(
    tables: &mut K,
    number: u8,
    answer: &Facts,
    others: bool,
    outcome: Outcome,
) -> Option<()> {
    let generation = plane(tables, number)?.generation;
    let key = FlowKey::arriving(answer, number)?;
    let now = tables.tick();
    let flow = if matches!(outcome.action, Action::Pass) {
        let limited = outcome.limited & RULE_RATE != 0 && !flow::is_tcp(answer);
        if outcome.rule == 0 || limited {
            return None;
        }
        Flow::of(generation, outcome.rule, now)
    } else if others {
        Flow::of(generation, 0, now)
    } else if flow::answers(answer) {
        return None;
    } else {
        Flow::of(0, 0, now)
    };
    flow::keep(tables, &key, flow);
    Some(())
}
