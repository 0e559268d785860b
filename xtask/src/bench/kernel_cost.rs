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
    let row = |what: &str, side: Side, values, peer| {
        Row::new(what, &side.name(), "ns", values).against(&RUNQLAT.name(), peer)
    };
    let (what, bare) = (
        "wake-up + switch",
        "wake-up + switch, net of empty programs",
    );
    let two = less(&peer, &empty, |_| 2.0);
    Ok(vec![
        row(what, Side::Empty, empty.clone(), peer.clone()),
        row(what, RUN_QUEUE, alone.clone(), peer.clone()).goal(Goal::RatioAtMost(0.12)),
        row(what, SCHED, all.clone(), peer).goal(Goal::RatioAtMost(0.25)),
        row(bare, RUN_QUEUE, less(&alone, &empty, |_| 1.0), two.clone()),
        row(bare, SCHED, less(&all, &empty, |_| 1.0), two),
    ])
}

/// All that our scheduler programs do, for each context switch.
fn ours_per_switch(programs: &[Program]) -> Result<f64> {
    programs::per_event(programs, "sched_switch")
}

/// What is left of each round's cost without so many empty programs.
fn less(costs: &[f64], empty: &[f64], runs: impl Fn(usize) -> f64) -> Vec<f64> {
    let rounds = costs.iter().zip(empty).enumerate();
    rounds
        .map(|(round, (cost, empty))| cost - empty * runs(round))
        .collect()
}

/// Costs of a block request, one for each round.
#[derive(Default)]
struct Requests {
    cost: Vec<f64>,
    /// Runs of programs at a request.
    runs: Vec<f64>,
}

impl Requests {
    fn push(&mut self, programs: &[Program]) -> Result<()> {
        self.cost.push(programs::per_event(programs, "complete")?);
        self.runs
            .push(programs::runs_per_event(programs, "complete")?);
        Ok(())
    }

    fn net(&self, empty: &[f64]) -> Vec<f64> {
        less(&self.cost, empty, |round| self.runs[round])
    }
}

/// Block latency against biolatency, on direct reads and synced writes: one
/// histogram of all requests, as it makes without options, and the nearest to
/// what ours does: by device and operation, and the queue as well, for which
/// it has to run twice. The empty program sits on the switches of this load.
pub fn block(bench: &Bench) -> Result<Vec<Row>> {
    const SIDES: [Side; 4] = [
        BLOCK,
        Side::Tool("biolatency"),
        Side::Tool("biolatency -D -F"),
        Side::Tool("biolatency -D -F -Q"),
    ];
    let mut all: [Requests; SIDES.len()] = Default::default();
    let mut empty = Vec::new();
    let _stats = Stats::set(true)?;
    for round in 0..bench.rounds {
        bench.say("block", round, &Side::Empty.name())?;
        let programs = under_load(bench, Side::Empty, &["block"])?;
        empty.extend(programs.iter().find_map(Program::average));
        for (side, requests) in SIDES.into_iter().zip(&mut all) {
            bench.say("block", round, &side.name())?;
            let programs = under_load(bench, side, &["block"])?;
            requests.push(&programs).with_context(|| {
                format!(
                    "is {} on a block device? The load runs there",
                    bench.dir.display()
                )
            })?;
        }
    }
    let [ours, plain, device, queue] = all;
    let both = |device: Vec<f64>, queue: Vec<f64>| {
        let rounds = device.into_iter().zip(queue);
        rounds.map(|(device, queue)| device + queue).collect()
    };
    let row = |what: &str, values, peer: &str, costs| {
        Row::new(what, &BLOCK.name(), "ns", values).against(peer, costs)
    };
    let (what, bare) = ("block request", "block request, net of empty programs");
    let (one, two) = ("biolatency", "biolatency -D -F, and again with -Q");
    let (net, plain_net) = (ours.net(&empty), plain.net(&empty));
    let both_net = both(device.net(&empty), queue.net(&empty));
    Ok(vec![
        Row::new(what, &Side::Empty.name(), "ns", empty).against(one, plain.cost.clone()),
        row(what, ours.cost.clone(), one, plain.cost).goal(Goal::RatioAtMost(0.2)),
        row(what, ours.cost, two, both(device.cost, queue.cost)),
        row(bare, net.clone(), one, plain_net),
        row(bare, net, two, both_net),
    ])
}

/// Each TCP program against an empty one, on loopback connections: with both
/// ends wherever they come to run, and with both on one CPU. What sockets and
/// routes cost that travel between caches is the difference.
pub fn tcp(bench: &Bench) -> Result<Vec<Row>> {
    let cpu = pinned_cpu()?;
    let _stats = Stats::set(true)?;
    let mut rows = tcp_under(bench, "run of", &["tcp"])?;
    rows.extend(tcp_under(
        bench,
        "on one CPU, run of",
        &["tcp", "--cpu", &cpu],
    )?);
    Ok(rows)
}

fn tcp_under(bench: &Bench, what: &str, load: &[&str]) -> Result<Vec<Row>> {
    let mut ours: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut empty = Vec::new();
    for round in 0..bench.rounds {
        for side in [Side::Empty, TCP] {
            bench.say("TCP", round, &side.name())?;
            for program in under_load(bench, side, load)? {
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
        Row::new(&format!("{what} {name}"), &TCP.name(), "ns", values)
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
