//! Nanoseconds in the kernel, by its own accounts of each side's programs.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::programs::{self, Program};
use super::row::{Goal, Row};
use super::side::{Running, Side};
use super::stats::Stats;

const RUN_QUEUE: Side = Side::Kldtrace(&["sched.runqueue_latency"]);
const SCHED: Side = Side::Kldtrace(&["sched.*"]);
const BLOCK: Side = Side::Kldtrace(&["block.*"]);
const TCP: Side = Side::Kldtrace(&["tcp.*"]);
const RUNQLAT: Side = Side::Tool("runqlat");
const BIOLATENCY: Side = Side::Tool("biolatency");

/// A program that ran less often in a round has no average worth a row.
const ENOUGH_RUNS: u64 = 100;

/// Run-queue latency against runqlat, on a ping-pong pinned to one CPU; the
/// empty program is the least that any program on `sched_switch` can cost.
pub fn run_queue(bench: &Bench) -> Result<Vec<Row>> {
    let cpu = pinned_cpu()?;
    let load = ["pingpong", "--cpu", cpu.as_str()];
    let (mut alone, mut all) = (Vec::new(), Vec::new());
    let (mut empty, mut peer) = (Vec::new(), Vec::new());
    let _stats = Stats::set(true)?;
    for round in 0..bench.rounds {
        for side in [RUNQLAT, Side::Empty, RUN_QUEUE, SCHED] {
            bench.say("run queue", round, &side.name())?;
            let programs = under_load(bench, side, &load)?;
            match side {
                Side::Tool(_) => peer.push(programs::wakeup_plus_switch(&programs)?),
                Side::Empty => empty.extend(programs.iter().find_map(Program::average)),
                Side::Kldtrace(["sched.*"]) => all.push(ours_per_switch(&programs)?),
                _ => alone.push(ours_per_switch(&programs)?),
            }
        }
    }
    let row = |side: Side, values| {
        Row::new("wake-up + switch", &side.name(), "ns", values)
            .against(&RUNQLAT.name(), peer.clone())
    };
    Ok(vec![
        row(Side::Empty, empty),
        row(RUN_QUEUE, alone).goal(Goal::RatioAtMost(0.12)),
        row(SCHED, all).goal(Goal::RatioAtMost(0.25)),
    ])
}

/// All that our scheduler programs do, for each context switch.
fn ours_per_switch(programs: &[Program]) -> Result<f64> {
    programs::per_event(programs, "sched_switch")
}

/// Block latency against biolatency, on direct reads and synced writes.
pub fn block(bench: &Bench) -> Result<Vec<Row>> {
    let (mut ours, mut peer) = (Vec::new(), Vec::new());
    let _stats = Stats::set(true)?;
    for round in 0..bench.rounds {
        for side in [BIOLATENCY, BLOCK] {
            bench.say("block", round, &side.name())?;
            let programs = under_load(bench, side, &["block"])?;
            let cost = programs::per_event(&programs, "complete").with_context(|| {
                format!(
                    "is {} on a block device? The load runs there",
                    bench.dir.display()
                )
            })?;
            if matches!(side, Side::Tool(_)) {
                &mut peer
            } else {
                &mut ours
            }
            .push(cost);
        }
    }
    let row = Row::new("block request", &BLOCK.name(), "ns", ours)
        .against(&BIOLATENCY.name(), peer)
        .goal(Goal::RatioAtMost(0.2));
    Ok(vec![row])
}

/// Each TCP program against an empty one, on loopback connections.
pub fn tcp(bench: &Bench) -> Result<Vec<Row>> {
    let mut ours: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut empty = Vec::new();
    let _stats = Stats::set(true)?;
    for round in 0..bench.rounds {
        for side in [Side::Empty, TCP] {
            bench.say("TCP", round, &side.name())?;
            for program in under_load(bench, side, &["tcp"])? {
                let Some(average) = program.average().filter(|_| program.runs >= ENOUGH_RUNS)
                else {
                    continue;
                };
                if matches!(side, Side::Empty) {
                    empty.push(average);
                } else {
                    ours.entry(program.name).or_default().push(average);
                }
            }
        }
    }
    if ours.is_empty() || empty.is_empty() {
        bail!("no TCP program of ours or no empty program ran {ENOUGH_RUNS} times in a round");
    }
    let row = |(name, values): (String, Vec<f64>)| {
        Row::new(&format!("run of {name}"), &TCP.name(), "ns", values)
            .against(&Side::Empty.name(), empty.clone())
            .goal(Goal::MoreByAtMost(100.0))
    };
    Ok(ours.into_iter().map(row).collect())
}

/// Starts a side, runs the load to its end, and returns what the side's
/// programs did meanwhile.
fn under_load(bench: &Bench, side: Side, load: &[&str]) -> Result<Vec<Program>> {
    let running = Running::start(bench, side).with_context(|| side.name())?;
    let pid = running
        .pid()
        .with_context(|| format!("{} has no process", side.name()))?;
    let before = programs::of_process(pid)?;
    bench.run_load(load)?;
    let after = programs::of_process(pid)?;
    if before.is_empty() || after.is_empty() {
        bail!(
            "{}: process {pid} holds no eBPF program (has it ended?)",
            side.name()
        );
    }
    Ok(programs::between(&before, &after))
}

/// The last CPU: interrupts tend to go to the first.
pub fn pinned_cpu() -> Result<String> {
    let cpus = std::thread::available_parallelism().context("cannot count CPUs")?;
    Ok((cpus.get() - 1).to_string())
}
