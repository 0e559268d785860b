//! What becomes of a packet in nftables.

use super::{
    field::{Asked, Field, Hook, Value},
    node::Node,
    packet::{Bound, Packet},
    ruleset::{Chain, Rule, Ruleset},
    set::Truth,
    statement::{How, Pairs, Statement, Verdict, With},
};

/// Chains within chains that the kernel follows
/// (include/net/netfilter/nf_tables.h: `NFT_JUMP_STACK_SIZE`).
const DEPTH: u32 = 16;
/// Rules and elements that are looked at for one packet.
const STEPS: usize = 1 << 20;

/// What becomes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Fate {
    /// No rule drops it.
    Passes,
    /// It is dropped: where.
    Dropped(String),
    /// It cannot be told: why.
    Unknown(String),
}

/// What may become of it in a chain: at least one of these.
#[derive(Clone, Default, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one of the ways, and any of them may be open"
)]
struct Ways {
    accept: bool,
    /// Where it would be dropped.
    drop: Option<String>,
    /// The next rule is asked.
    next: bool,
    /// The chain is over.
    back: bool,
    /// What comes behind is not about this packet, or is not known.
    lost: bool,
    /// Why there are several.
    why: Option<String>,
}

impl Ways {
    fn lost(why: String) -> Self {
        Self {
            lost: true,
            why: Some(why),
            ..Self::default()
        }
    }

    fn add(&mut self, other: Self) {
        self.accept |= other.accept;
        self.drop = self.drop.take().or(other.drop);
        self.next |= other.next;
        self.back |= other.back;
        self.lost |= other.lost;
        self.why = self.why.take().or(other.why);
    }
}

/// Follows a packet from the driver to where it goes. Limits count as not
/// reached.
pub fn follow(ruleset: &Ruleset, node: &Node, packet: &Packet) -> Fate {
    let hooks: &[Hook] = match packet.bound {
        Bound::Here => &[Hook::Ingress, Hook::Prerouting, Hook::Input],
        Bound::Through(_) => &[
            Hook::Ingress,
            Hook::Prerouting,
            Hook::Forward,
            Hook::Postrouting,
        ],
    };
    let mut unknown = None;
    let mut untracked = false;
    let mut steps = STEPS;
    for base in &ruleset.base {
        let v6 = packet.source.is_ipv6();
        let Some(chain) = ruleset.of(base) else {
            continue;
        };
        if !hooks.contains(&base.hook) || !base.is_for(&packet.arrives, v6) {
            continue;
        }
        // include/uapi/linux/netfilter_ipv4.h: `NF_IP_PRI_CONNTRACK`.
        let early = (base.hook, base.priority) <= (Hook::Prerouting, -200);
        let mut follower = Follower {
            ruleset,
            asked: Asked {
                packet,
                node,
                hook: base.hook,
                tracked: !early && !untracked,
            },
            steps,
            untracked: false,
        };
        let mut ways = follower.chain(chain, 0);
        untracked |= follower.untracked;
        steps = follower.steps;
        if ways.next && base.passes {
            ways.accept = true;
        } else if ways.next {
            let policy = || format!("chain {}, its policy", chain.title());
            ways.drop.get_or_insert_with(policy);
        }
        match ways {
            Ways {
                accept: false,
                lost: false,
                drop: Some(place),
                ..
            } => return Fate::Dropped(place),
            Ways {
                lost: false,
                drop: None,
                ..
            } => {}
            Ways { lost, why, .. } => {
                unknown = unknown.or(why);
                if lost {
                    break;
                }
            }
        }
    }
    unknown.map_or(Fate::Passes, Fate::Unknown)
}

struct Follower<'a> {
    ruleset: &'a Ruleset,
    asked: Asked<'a>,
    /// Steps that are left.
    steps: usize,
    /// Some rule may have kept the packet from conntrack.
    untracked: bool,
}

impl<'a> Follower<'a> {
    /// What a chain makes of it; at its end [`Ways::next`].
    fn chain(&mut self, chain: &'a Chain, depth: u32) -> Ways {
        if depth > DEPTH {
            return Ways::lost(format!("chain {} is jumped to too deep", chain.title()));
        }
        let mut all = Ways::default();
        let mut at_end = true;
        for rule in &chain.rules {
            if !self.step(1) {
                return Ways::lost("too many rules to follow".to_owned());
            }
            let Some(mut ways) = self.rule(chain, rule, depth) else {
                continue;
            };
            at_end = std::mem::take(&mut ways.next);
            all.add(ways);
            if !at_end {
                break;
            }
        }
        // Whoever jumped here goes on in both cases.
        all.next = at_end | std::mem::take(&mut all.back);
        all
    }

    /// What a rule may decide; `None`: nothing. Where it is not sure that the
    /// rule matches, the next rule is one of the ways.
    fn rule(&mut self, chain: &'a Chain, rule: &'a Rule, depth: u32) -> Option<Ways> {
        let at = |what: &str| format!("{what} in chain {}, handle {}", chain.title(), rule.handle);
        let mut unsure = None;
        let mut odd = false;
        for statement in &rule.statements {
            match statement {
                Statement::Match {
                    field,
                    how,
                    with,
                    words,
                } => match self.compare(chain, field, *how, with) {
                    Truth::No => return None,
                    Truth::Yes => {}
                    Truth::Unknown => unsure = unsure.or_else(|| Some(at(words))),
                },
                Statement::Limit { over: true } => return None,
                Statement::Limit { over: false } | Statement::Aside => {}
                Statement::Untracked => self.untracked = true,
                Statement::Odd(what) => {
                    odd = true;
                    unsure = unsure.or_else(|| Some(at(what)));
                }
                Statement::Verdict(verdict) => {
                    let ways = self.verdict(chain, rule, verdict, depth);
                    return Some(perhaps(ways, unsure));
                }
                Statement::Map { field, with, words } => match self.look_up(chain, field, with) {
                    Found::Verdict(verdict) => {
                        let ways = self.verdict(chain, rule, verdict, depth);
                        return Some(perhaps(ways, unsure));
                    }
                    Found::None => return None,
                    Found::Unknown => {
                        let why = unsure.or_else(|| Some(at(words)));
                        let drop = Some(format!("chain {}, handle {}", chain.title(), rule.handle));
                        return Some(Ways {
                            accept: true,
                            drop,
                            next: true,
                            back: true,
                            lost: false,
                            why,
                        });
                    }
                },
            }
        }
        let why = unsure.filter(|_| odd)?;
        Some(Ways::lost(why))
    }

    fn verdict(&mut self, chain: &'a Chain, rule: &Rule, verdict: &'a Verdict, depth: u32) -> Ways {
        let place = || format!("chain {}, handle {}", chain.title(), rule.handle);
        let mut ways = Ways::default();
        let (target, comes_back) = match verdict {
            Verdict::Accept => {
                ways.accept = true;
                return ways;
            }
            Verdict::Drop => {
                ways.drop = Some(place());
                return ways;
            }
            Verdict::Return => {
                ways.back = true;
                return ways;
            }
            Verdict::Continue => {
                ways.next = true;
                return ways;
            }
            Verdict::Other(what) => return Ways::lost(format!("{what} in {}", place())),
            Verdict::Jump(target) => (target, true),
            Verdict::Goto(target) => (target, false),
        };
        let Some(target) = self.ruleset.beside(chain, target) else {
            return Ways::lost(format!("a jump to an unknown chain in {}", place()));
        };
        ways = self.chain(target, depth + 1);
        if !comes_back {
            ways.back = std::mem::take(&mut ways.next);
        }
        ways
    }

    fn compare(&mut self, chain: &Chain, field: &Field, how: How, with: &With) -> Truth {
        let value = match field.of(self.asked) {
            Value::Absent => return Truth::No,
            Value::Unknown => return Truth::Unknown,
            value => value,
        };
        let set = match with {
            With::Items(set) => Some(set),
            With::Named(name) => match self.ruleset.set_of(chain, name) {
                Some(set) => Some(set),
                None => return Truth::Unknown,
            },
            With::Number(_) => None,
            With::Odd => return Truth::Unknown,
        };
        if let Some(set) = set {
            if !self.step(set.slow()) {
                return Truth::Unknown;
            }
            return match how {
                How::Is | How::Bits => set.has(&value),
                How::IsNot => set.has(&value).not(),
                _ => Truth::Unknown,
            };
        }
        let (Value::Number(one), With::Number(other)) = (value, with) else {
            return Truth::Unknown;
        };
        Truth::of(match how {
            How::Is => one == *other,
            How::IsNot => one != *other,
            How::Bits => one & other != 0,
            How::Less => one < *other,
            How::More => one > *other,
            How::Most => one <= *other,
            How::Least => one >= *other,
        })
    }

    fn look_up(&mut self, chain: &Chain, field: &Field, with: &'a Pairs) -> Found<'a> {
        let value = match field.of(self.asked) {
            Value::Absent => return Found::None,
            Value::Unknown => return Found::Unknown,
            value => value,
        };
        let pairs = match with {
            Pairs::Here(pairs) => pairs,
            Pairs::Named(name) => match self.ruleset.map_of(chain, name) {
                Some(pairs) => pairs,
                None => return Found::Unknown,
            },
        };
        if !self.step(pairs.len()) {
            return Found::Unknown;
        }
        let mut any = Found::None;
        for (item, verdict) in pairs {
            if *item == super::set::Item::Any {
                any = Found::Verdict(verdict);
                continue;
            }
            match item.covers(&value) {
                Truth::Yes => return Found::Verdict(verdict),
                Truth::Unknown => return Found::Unknown,
                Truth::No => {}
            }
        }
        any
    }

    /// Takes steps, if there are so many.
    fn step(&mut self, steps: usize) -> bool {
        let left = self.steps.checked_sub(steps);
        self.steps = left.unwrap_or(0);
        left.is_some()
    }
}

enum Found<'a> {
    Verdict(&'a Verdict),
    None,
    Unknown,
}

/// Ways of a rule that may not match, if there is a reason.
fn perhaps(mut ways: Ways, unsure: Option<String>) -> Ways {
    if unsure.is_some() {
        ways.next = true;
        ways.why = unsure;
    }
    ways
}
