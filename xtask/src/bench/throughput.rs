//! What a pinned ping-pong gets done with everything attached.

use anyhow::{Context, Result};

use super::Bench;
use super::kernel_cost::pinned_cpu;
use super::row::{Goal, Row};
use super::side::{Running, Side};
use super::stats::Stats;

const SIDES: [Side; 4] = [
    Side::Nothing,
    Side::Empty,
    Side::Kldtrace(&["*"]),
    Side::Tool("runqlat"),
];

/// Round trips in a second: nothing, an empty program on `sched_switch` (what
/// being there costs), all of ours, runqlat alone.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let cpu = pinned_cpu()?;
    let mut rates = [const { Vec::new() }; SIDES.len()];
    // The accounts cost time of their own.
    let _stats = Stats::set(false)?;
    for round in 0..bench.rounds {
        for (side, rates) in SIDES.into_iter().zip(&mut rates) {
            bench.say("throughput", round, &side.name())?;
            let _running = Running::start(bench, side).with_context(|| side.name())?;
            rates.push(bench.run_load(&["pingpong", "--cpu", &cpu])?);
        }
    }
    let [nothing, empty, ours, runqlat] = rates;
    let row = |side: Side, values| {
        Row::new("ping-pong", &side.name(), "round trips/s", values)
            .against(&Side::Nothing.name(), nothing.clone())
    };
    Ok(vec![
        row(SIDES[1], empty),
        row(SIDES[2], ours).goal(Goal::RatioAtLeast(0.95)),
        row(SIDES[3], runqlat),
    ])
}
