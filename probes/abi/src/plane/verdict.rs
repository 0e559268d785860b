//! What becomes of a packet.

use super::{
    address::{self, Address, Leaf},
    facts::{Facts, Family, Fragment, Malformed, Message},
    flow::{self, Flow, FlowKey},
    image::{
        self, Cell, Domain, ENFORCE, Header, LIMITS, Limits, Listed, OTHER_FRAMES, PLANES, Plane,
        Rule, WHOLE_ONLY, WIREGUARD,
    },
    kind,
    memo::{self, Memo},
    outcome::{Action, Outcome, PLANE_RATE, RULE_RATE, Reason},
    rate::{BucketKey, Rate, Set, Taken},
    service::{self, Always},
    table::{self, Classes, Query},
    transport::UDP,
};

/// An image.
pub trait Cells: Sized {
    /// A cell; `None` behind the end.
    fn cell(&self, number: u32) -> Option<&Cell>;
}

/// What a verdict is made from: an image, and what outlives it. In the kernel
/// these are BPF maps.
pub trait Tables: Cells {
    /// A flow that is known. Packets that arrive ask [`flow::is_stamped`].
    fn flow(&mut self, key: &FlowKey) -> Option<&mut Flow>;
    /// The stamp at a place, which is less than [`flow::STAMPS`].
    fn stamp(&mut self, place: u32) -> Option<&mut u16>;
    /// Keeps a flow, in place of the one that was there: by [`flow::keep`].
    fn remember(&mut self, key: &FlowKey, flow: Flow);
    /// A set of buckets, which is less than [`super::rate::SETS`].
    fn buckets(&mut self, set: u32) -> Option<&mut Set>;
    /// Counts a bucket that gave way to another before its time.
    fn crowded(&mut self);
    /// The entry at a place of the memo, which is less than [`memo::MEMOS`].
    fn memo(&mut self, place: u32) -> Option<&mut Memo>;
    /// Ticks of the kernel's clock, of which there are 100 to 1,000 in a second.
    fn jiffies(&self) -> u64;
    /// Now, by `CLOCK_MONOTONIC` in nanoseconds.
    fn now(&self) -> u64;
    /// The same as of the last tick, some milliseconds ago, at less cost.
    fn tick(&self) -> u64;
    /// Finds an address, from root number `root`. The kernel does so out of
    /// line: inlined, the verifier looks at all that follows once for each way
    /// out of the trie.
    #[inline(always)]
    fn leaf(&mut self, header: &Header, root: u32, address: &Address) -> Option<Leaf> {
        address::find(self, header, root, *address)
    }
    /// Of which kind a source is whose block is not usual ([`kind::unusual`]);
    /// out of line as well, as most sources are.
    #[inline(always)]
    fn kind(&mut self, group: u32, address: u64) -> u64 {
        kind::unusual(self, group, address)
    }
    /// Finds the first rule that matches; out of line as well.
    #[inline(always)]
    fn first(&mut self, header: &Header, query: &Query) -> Option<u32> {
        table::first(self, header, query)
    }
}

/// What becomes of a packet that arrives on a plane.
///
/// A plane that the policy does not have drops nothing: its interface is not
/// meant to be filtered. A damaged image drops.
#[inline(always)]
pub fn judge<K: Tables>(tables: &mut K, number: u8, facts: &Facts) -> Outcome {
    let mut outcome = Outcome::default();
    if !recalled(tables, number, facts, &mut outcome)
        && !at_once(tables, number, facts, &mut outcome)
    {
        outcome = by_rules(tables, number, facts);
        // Without an image there is nothing to keep.
        let _ = learn(tables, number, facts, outcome);
    }
    if outcome.limited != 0 {
        outcome = charge(tables, number, facts, outcome);
    }
    if matches!(outcome.action, Action::WouldDrop) {
        // Malformed packets and the like have no flow.
        let _ = refuse(tables, number, facts);
    }
    outcome
}

/// The first part of [`judge`]: what was decided about such packets before, and
/// whether anything was; else go on with [`at_once`]. Most packets end here.
#[inline(always)]
pub fn recalled<K: Tables>(
    tables: &mut K,
    number: u8,
    facts: &Facts,
    outcome: &mut Outcome,
) -> bool {
    let Some(plane) = plane(tables, number) else {
        return false;
    };
    memo::recall(tables, number, &plane, facts, outcome)
}

/// The second part: all that needs no rule, and whether that is all; else go on
/// with [`by_rules`].
#[inline(always)]
pub fn at_once<K: Tables>(
    tables: &mut K,
    number: u8,
    facts: &Facts,
    outcome: &mut Outcome,
) -> bool {
    let known = match plane(tables, number) {
        None => Some(Outcome::drop(Reason::Image)),
        Some(plane) if plane.own == 0 => Some(Outcome::pass(Reason::NoPlane)),
        Some(plane) => {
            let found = known(tables, &plane, number, facts);
            if found.is_none() && flow::may_have(facts) {
                // Of others it was asked first of all.
                return memo::recall_first(tables, number, &plane, facts, outcome);
            }
            found.map(|found| carried_out(&plane, found))
        }
    };
    if let Some(known) = known {
        *outcome = known;
    }
    known.is_some()
}

/// The third part: the rules. Then comes [`learn`].
#[inline(always)]
pub fn by_rules<K: Tables>(tables: &mut K, number: u8, facts: &Facts) -> Outcome {
    let Some(plane) = plane(tables, number) else {
        return Outcome::drop(Reason::Image);
    };
    let outcome = ruled(tables, &plane, number, facts);
    let outcome = outcome.unwrap_or(Outcome::drop(Reason::Image));
    carried_out(&plane, outcome)
}

/// The fourth part: keeps what the rules said.
#[inline(always)]
pub fn learn<K: Tables>(tables: &mut K, number: u8, facts: &Facts, outcome: Outcome) -> Option<()> {
    let plane = plane(tables, number)?;
    memo::keep_first(tables, number, &plane, facts, outcome);
    Some(())
}

/// The fifth part, for what counts against rates: drops what is over one.
#[inline(always)]
pub fn charge<K: Tables>(tables: &mut K, number: u8, facts: &Facts, outcome: Outcome) -> Outcome {
    let charged = charged(tables, number, facts, outcome);
    charged.unwrap_or(Outcome::drop(Reason::Image))
}

/// `None`: the image is damaged.
#[inline(always)]
fn charged<K: Tables>(
    tables: &mut K,
    number: u8,
    facts: &Facts,
    outcome: Outcome,
) -> Option<Outcome> {
    let over = Outcome::drop(Reason::Rate).limited(outcome.limited);
    let over = carried_out(&plane(tables, number)?, over);
    if outcome.limited & PLANE_RATE != 0 {
        let limits: Limits = *tables
            .cell(PLANES as u32 + 1 + u32::from(number & 15))?
            .at(0);
        if is_over(tables, limits.first, BucketKey::plane(facts, number))
            || flow::begins(facts) && is_over(tables, limits.syn, BucketKey::syn(facts, number))
        {
            return Some(over);
        }
    }
    if outcome.limited & RULE_RATE != 0 {
        let header: &Header = tables.cell(0)?.at(0);
        let rule: Rule = image::item(tables, header.rules, outcome.rule)?;
        if is_over(tables, rule.rate, BucketKey::rule(facts, rule.counter)) {
            return Some(over.by(outcome.rule).counted(rule.counter));
        }
    }
    Some(outcome)
}

/// Whether a packet is more than a rate allows its source.
#[inline(always)]
fn is_over<K: Tables>(tables: &mut K, rate: Rate, key: BucketKey) -> bool {
    if !rate.limits() {
        return false;
    }
    let (mark, set) = key.mark();
    let now = tables.now();
    let taken = tables.buckets(set).map(|set| set.take(mark, rate, now));
    if taken == Some(Taken::Crowded) {
        tables.crowded();
    }
    taken == Some(Taken::Over)
}

/// What the rules say to a first packet, whatever the plane's mode is. `None`:
/// the image is damaged.
#[inline(always)]
pub fn unlimited<K: Tables>(tables: &mut K, number: u8, facts: &Facts) -> Option<Outcome> {
    let plane = plane(tables, number)?;
    ruled(tables, &plane, number, facts)
}

/// In audit mode nothing is dropped.
#[inline(always)]
const fn carried_out(plane: &Plane, mut outcome: Outcome) -> Outcome {
    if matches!(outcome.action, Action::Drop) && plane.flags & ENFORCE == 0 {
        outcome.action = Action::WouldDrop;
    }
    outcome
}

/// The last part of [`judge`], for packets that pass in audit mode alone:
/// their flow is refused, so that answers do not make it the node's own.
#[inline(always)]
pub fn refuse<K: Tables>(tables: &mut K, number: u8, facts: &Facts) -> Option<()> {
    let ip = matches!(facts.family, Family::V4 | Family::V6);
    if facts.malformed as u8 != Malformed::No as u8 || !ip {
        return None;
    }
    let plane = plane(tables, number)?;
    // What is no message of WireGuard is of no session: anybody could end those
    // that there are with it.
    if is_none_of_wireguard(&plane, facts) {
        return None;
    }
    let key = FlowKey::arriving(facts, number)?;
    let seen = tables.tick();
    flow::keep(tables, &key, Flow::of(plane.generation, 0, seen));
    memo::forget_flow(tables, number, facts);
    Some(())
}

/// A plane; `None` where the image is too short, or there is no such number.
#[inline(always)]
pub(super) fn plane<K: Cells>(tables: &K, number: u8) -> Option<Plane> {
    let plane = *tables.cell(u32::from(number & 15))?.at(0);
    (number != 0).then_some(plane)
}

/// The verdict by the packet itself, or by its flow.
#[inline(always)]
fn known<K: Tables>(tables: &mut K, plane: &Plane, number: u8, facts: &Facts) -> Option<Outcome> {
    if facts.malformed as u8 != Malformed::No as u8 {
        return Some(Outcome::drop(Reason::Malformed).detail(facts.malformed as u8));
    }
    match facts.family {
        Family::V4 | Family::V6 => {}
        Family::Arp if plane.always & Always::Neighbours as u8 != 0 => {
            return Some(Outcome::pass(Reason::Always).detail(Always::Neighbours as u8));
        }
        Family::Other if plane.flags & OTHER_FRAMES != 0 => {
            return Some(Outcome::pass(Reason::NotIp));
        }
        _ => return Some(Outcome::drop(Reason::NotIp)),
    }
    if plane.flags & WHOLE_ONLY != 0 && !matches!(facts.fragment, Fragment::Whole) {
        return Some(Outcome::drop(Reason::Fragment));
    }
    if is_none_of_wireguard(plane, facts) {
        return Some(Outcome::drop(Reason::WireGuard));
    }
    if matches!(facts.message, Message::Initiation) && is_for_wireguard(plane, facts) {
        // It asks for work, and belongs to no session yet.
        return None;
    }
    if flow::begins(facts) {
        return None;
    }
    let key = FlowKey::arriving(facts, number)?;
    if !flow::is_stamped(tables, &key) {
        return None;
    }
    let now = tables.tick();
    let flow = tables.flow(&key)?;
    if !flow.admits(facts.protocol, plane.generation, now) {
        return None;
    }
    let outcome = Outcome::pass(Reason::Established).by(flow.rule);
    if flow.see(now) {
        flow::stamp(tables, &key, now);
    }
    memo::keep_flow(tables, number, plane.generation, facts, outcome);
    Some(outcome)
}

/// Whether it is for a port that takes WireGuard's messages alone.
#[inline(always)]
fn is_for_wireguard(plane: &Plane, facts: &Facts) -> bool {
    let [a, b, c, d] = plane.wireguard;
    let port = facts.destination_port;
    plane.flags & WIREGUARD != 0
        && facts.protocol == UDP
        && port != 0
        && (port == a || port == b || port == c || port == d)
}

/// Whether it is for such a port, and no message.
#[inline(always)]
fn is_none_of_wireguard(plane: &Plane, facts: &Facts) -> bool {
    matches!(facts.message, Message::None) && is_for_wireguard(plane, facts)
}

/// The verdict on a first packet, as if its source had sent no other.
#[inline(always)]
fn ruled<K: Tables>(tables: &mut K, plane: &Plane, number: u8, facts: &Facts) -> Option<Outcome> {
    let header: &Header = &image::item(tables, 0, 0)?;
    let service = service::find(tables, header, facts)?;
    let family = facts.family.is_v6();
    let destination = tables.leaf(header, 2 + family, &facts.destination)?;
    let own = destination.plane() == 0 || destination.plane() == number;
    let always = service.always() & plane.always;
    if always != 0 && (always == PATH_MTU || own) {
        return Some(Outcome::pass(Reason::Always).detail(always));
    }
    let source = tables.leaf(header, family, &facts.source)?;
    if source.listed() {
        let listed: Listed = *tables
            .cell(header.classes.wrapping_add(source.class()))?
            .at(0);
        let rule = listed.rules[usize::from(number & 15)];
        if rule != 0 {
            let Rule { counter, .. } = image::item(tables, header.rules, rule)?;
            return Some(Outcome::drop(Reason::Blocked).by(rule).counted(counter));
        }
    }
    // From the image, not from `plane`: a place that is not constant would have
    // the kernel copy all of that to its stack.
    let there: &Plane = tables.cell(u32::from(number & 15))?.at(0);
    let domain = domain_of(there, number, source.plane(), destination.plane());
    if domain == 0 {
        return Some(Outcome::drop(Reason::Cross));
    }
    let rules: &Domain = tables
        .cell(header.domains.wrapping_add(u32::from(domain)))?
        .at(0);
    let classes = Classes {
        domain,
        source: source.class(),
        destination: destination.class(),
        service: service.class(),
        protocol: service.protocol(),
    };
    let query = Query::new(rules, classes);
    let first = tables.first(header, &query)?;
    let rule: Rule = image::item(tables, header.rules, first)?;
    let mut limited = if plane.flags & LIMITS == 0 {
        0
    } else {
        PLANE_RATE
    };
    let counts = rule.initiations == 0 || matches!(facts.message, Message::Initiation);
    if counts && rule.rate.limits() {
        limited |= RULE_RATE;
    }
    let reason = Reason::of_rule(rule.reason);
    let outcome = if rule.pass == 0 {
        Outcome::drop(reason)
    } else {
        Outcome::pass(reason)
    };
    Some(outcome.by(first).counted(rule.counter).limited(limited))
}

/// What always passes does so within a plane, as any datagram can have DHCP's
/// port. But this is said by routers of any: what it is about may have been
/// allowed to cross.
const PATH_MTU: u8 = Always::PathMtu as u8;

/// The rules that a packet on plane `number` is for, by the planes that its
/// addresses belong to.
#[inline(always)]
const fn domain_of(plane: &Plane, number: u8, source: u8, destination: u8) -> u8 {
    let source = if source == 0 { number } else { source };
    let destination = if destination == 0 {
        number
    } else {
        destination
    };
    if source == number && destination == number {
        plane.own
    } else if source == number {
        plane.to[(destination & 15) as usize]
    } else if destination == number {
        plane.from[(source & 15) as usize]
    } else {
        0
    }
}
