//! What is applied, what it has done, and what is wrong.

use std::collections::HashMap;

use kldtrace_abi::plane::{Action, Reason, count::Count};
use serde::Serialize;

use super::{
    attach::{self, Place},
    install::Counted,
    interfaces::{self, Interface, Mode},
    link::Direction,
    numbers::RuleName,
    pins::{Pins, object_hash},
    policy,
    programs::{For, Set},
    roots::Roots,
    saved::Saved,
    state::{Act, State, TakenBack},
};

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The generation that is applied.
    pub generation: Option<u32>,
    /// Who applied it.
    pub applied_by: Option<Act>,
    /// Seconds in which it has to be confirmed.
    pub confirm_within_seconds: Option<u64>,
    /// The generation that can be returned to.
    pub previous_generation: Option<u32>,
    /// Who let everything pass.
    pub opened_by: Option<Act>,
    /// The last policy that was taken back.
    pub taken_back: Option<TakenBack>,
    /// The planes, in the order of the file.
    pub planes: Vec<Plane>,
    /// What the programs lost, by reason, where it is not 0.
    pub losses: Vec<(&'static str, u64)>,
    /// What is not as it should be.
    pub problems: Vec<String>,
}

/// A plane.
#[derive(Clone, Debug, Serialize)]
pub struct Plane {
    /// Its name.
    pub name: String,
    /// `enforce` or `audit`.
    pub mode: &'static str,
    /// Its interfaces.
    pub interfaces: Vec<OnInterface>,
    /// What became of packets.
    pub verdicts: Vec<Verdict>,
    /// Its rules that have counted something, and all others.
    pub rules: Vec<Rule>,
}

/// An interface of a plane.
#[derive(Clone, Debug, Serialize)]
pub struct OnInterface {
    /// Its name.
    pub name: String,
    /// Where XDP judges what arrives; `None`: nothing does.
    pub xdp: Option<Mode>,
    /// Whether what leaves is seen.
    pub tcx: bool,
}

/// Packets of a plane, without those of its rules.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Why.
    pub reason: &'static str,
    /// `pass`, `drop` or `would_drop`.
    pub verdict: &'static str,
    /// Packets.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A rule.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    /// What it is called.
    #[serde(flatten)]
    pub rule: RuleName,
    /// Packets that it let pass.
    pub passed: Packets,
    /// Packets that it dropped.
    pub dropped: Packets,
    /// Packets that it would have dropped.
    pub would_drop: Packets,
    /// Packets that were over its rate.
    pub over_rate: Packets,
}

/// Packets and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packets {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl From<Count> for Packets {
    fn from(count: Count) -> Self {
        Self {
            packets: count.packets,
            bytes: count.bytes,
        }
    }
}

/// What the programs did with packets, in words.
pub const ACTIONS: [(Action, &str); 3] = [
    (Action::Pass, "pass"),
    (Action::Drop, "drop"),
    (Action::WouldDrop, "would_drop"),
];

/// Looks at everything. Takes no lock: while something is being changed, it
/// says what it sees.
///
/// # Errors
/// When the state or the policy are damaged, or without rights.
pub fn report(roots: &Roots) -> anyhow::Result<Report> {
    let state = State::load(roots)?;
    let mut report = Report {
        generation: None,
        applied_by: None,
        confirm_within_seconds: None,
        previous_generation: state.previous.as_ref().map(|one| one.generation),
        opened_by: state.opened.clone(),
        taken_back: state.taken_back.clone(),
        planes: Vec::new(),
        losses: Vec::new(),
        problems: Vec::new(),
    };
    let Some(current) = &state.current else {
        return Ok(report);
    };
    report.generation = Some(current.generation);
    report.applied_by = Some(current.by.clone());
    if let Some(confirm) = &current.confirm {
        report.confirm_within_seconds = Some(confirm.deadline.left()?.as_secs());
    }
    let saved = Saved::load(roots, current.generation)?;
    let pins = Pins::new(roots);
    let running = pins.generation()?;
    let opened = state.opened.is_some();
    if opened {
        let problem = "everything passes, by panic-open: `kldtrace planes apply` ends that";
        report.problems.push(problem.to_owned());
    } else if running != Some(current.generation) {
        report.problems.push(match running {
            None => {
                "no policy is in the kernel: `kldtrace planes restore` puts it there".to_owned()
            }
            Some(running) => format!(
                "generation {running} is in the kernel: a change was interrupted, \
                 `kldtrace planes restore` completes or drops it"
            ),
        });
    }
    let epoch = pins.epochs()?.pop();
    let set = epoch
        .as_ref()
        .map(|epoch| Set::new(pins.epoch(epoch), epoch.places));
    let programs = match &set {
        Some(set) => set.programs()?,
        None => HashMap::new(),
    };
    let mut counted = None;
    match &epoch {
        Some(epoch) if epoch.hash != object_hash() => report.problems.push(
            "the programs are another version's: `kldtrace planes restore` takes them over"
                .to_owned(),
        ),
        Some(_) => {
            counted = pins.counts()?.map(|counts| counts.all()).transpose()?;
            let losses = pins.losses()?.into_iter().filter(|(_, lost)| *lost > 0);
            report.losses = losses.map(|(loss, lost)| (loss.as_str(), lost)).collect();
        }
        None => {}
    }
    let interfaces = interfaces::all()?;
    let attached = attached(&pins, &programs, &interfaces, &mut report.problems)?;
    for plane in &saved.policy.planes {
        let mut found = of_plane(plane, &saved, &interfaces, &attached);
        if let Some(counted) = &counted {
            count(&mut found, plane.number, &saved, counted)?;
        }
        for interface in &found.interfaces {
            if !opened && (interface.xdp.is_none() || !interface.tcx) {
                report.problems.push(format!(
                    "{} of plane {:?} is not filtered: `kldtrace planes restore` attaches it",
                    interface.name, plane.name
                ));
            }
        }
        report.planes.push(found);
    }
    Ok(report)
}

/// Which programs are where, by interface and direction.
type Attached = HashMap<(u32, Direction), For>;

fn attached(
    pins: &Pins,
    programs: &HashMap<u32, For>,
    interfaces: &[Interface],
    problems: &mut Vec<String>,
) -> anyhow::Result<Attached> {
    let mut attached = Attached::new();
    for held in attach::held(pins)? {
        match attach::place(&held.info, interfaces) {
            Place::Here => match programs.get(&held.info.program) {
                Some(program) => {
                    attached.insert((held.info.interface, held.info.direction), *program);
                }
                None => problems.push(format!(
                    "{} has a program of an earlier set: `kldtrace planes restore` replaces it",
                    held.pin.display()
                )),
            },
            Place::Away if held.info.direction == Direction::In => problems.push(format!(
                "an interface was moved to another namespace, where it is filtered as before \
                 (index {} there; {})",
                held.info.interface,
                held.pin.display()
            )),
            _ => {}
        }
    }
    Ok(attached)
}

fn of_plane(
    plane: &policy::Plane,
    saved: &Saved,
    interfaces: &[Interface],
    attached: &Attached,
) -> Plane {
    let wanted = attach::wanted(&saved.policy, interfaces);
    let here = wanted.iter().filter(|(_, number)| *number == plane.number);
    let has = |interface: &Interface, direction| {
        let program = attached.get(&(interface.index, direction));
        program.is_some_and(|program| program.plane == plane.number)
    };
    Plane {
        name: plane.name.clone(),
        mode: if plane.enforce { "enforce" } else { "audit" },
        interfaces: here
            .map(|(interface, _)| OnInterface {
                name: interface.name.clone(),
                xdp: interface
                    .xdp
                    .filter(|_| has(interface, Direction::In))
                    .map(|xdp| xdp.mode),
                tcx: has(interface, Direction::Out),
            })
            .collect(),
        verdicts: Vec::new(),
        rules: Vec::new(),
    }
}

fn count(plane: &mut Plane, number: u8, saved: &Saved, counted: &Counted) -> anyhow::Result<()> {
    for reason in Reason::ALL {
        for (action, verdict) in ACTIONS {
            let Count { packets, bytes } = counted.plane(number, reason, action)?;
            if packets > 0 {
                plane.verdicts.push(Verdict {
                    reason: reason.as_str(),
                    verdict,
                    packets,
                    bytes,
                });
            }
        }
    }
    for (rule, place) in saved.numbers.all_rules() {
        if rule.on != plane.name {
            continue;
        }
        let [passed, dropped, would_drop, over_rate] = counted.rule(place)?.map(Packets::from);
        plane.rules.push(Rule {
            rule: rule.clone(),
            passed,
            dropped,
            would_drop,
            over_rate,
        });
    }
    Ok(())
}
