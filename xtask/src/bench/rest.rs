//! The daemon at rest: what it takes while nobody asks it anything.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::Bench;
use super::row::{Goal, Row};
use super::series;
use super::side::{Side, daemon};
use crate::{http, sh};

const ALL: Side = Side::Kldtrace(&["*"]);
/// How long it is watched in each round.
const WATCH: Duration = Duration::from_secs(20);
/// What the daemon itself says of its start.
const ATTACH: &str = "kldtrace_attach_seconds";

/// Memory, CPU time and start, with everything on.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let (mut memory, mut cpu) = (Vec::new(), Vec::new());
    let (mut attach, mut start) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        bench.say("daemon at rest", round, &ALL.name())?;
        let began = Instant::now();
        let daemon = daemon(bench, &["*"])?;
        start.push(began.elapsed().as_secs_f64());
        // Warm: it has answered once.
        let metrics = http::get(daemon.address(), "/metrics", "text/plain")?;
        attach.extend(series::value(
            &String::from_utf8_lossy(&metrics.body),
            ATTACH,
        ));
        let (before, began) = (cpu_time(daemon.pid())?, Instant::now());
        bench.interrupt.sleep(WATCH)?;
        // A thread that ended takes its time with it.
        let used = cpu_time(daemon.pid())?.saturating_sub(before);
        cpu.push(100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64());
        memory.push(resident(daemon.pid())?);
    }
    let row = |what, unit, values, goal| {
        Row::new(what, &ALL.name(), unit, values).goal(Goal::AtMost(goal))
    };
    let mut rows = vec![
        row("resident memory", "MB", memory, 25.0),
        row("CPU at rest", "% of a core", cpu, 0.3),
        row("start until healthy", "s", start, 2.0),
    ];
    if !attach.is_empty() {
        rows.push(row("attaching", "s", attach, 2.0));
    }
    Ok(rows)
}

/// `VmRSS` in units of a million bytes.
fn resident(pid: u32) -> Result<f64> {
    let status = sh::read(format!("/proc/{pid}/status"))?;
    parse_resident(&status).with_context(|| format!("no VmRSS in /proc/{pid}/status"))
}

fn parse_resident(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Time on CPU of all threads, to the nanosecond: the ticks of
/// /proc/PID/stat are too coarse for a third of a percent.
fn cpu_time(pid: u32) -> Result<Duration> {
    let dir = format!("/proc/{pid}/task");
    let tasks = fs::read_dir(&dir).with_context(|| format!("cannot read {dir}"))?;
    let mut total = Duration::ZERO;
    for task in tasks.flatten() {
        // A thread may end while we look.
        let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else {
            continue;
        };
        let nanoseconds = text
            .split_whitespace()
            .next()
            .and_then(|word| word.parse().ok());
        total += Duration::from_nanos(nanoseconds.context("schedstat has no number")?);
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory() {
        let status = "Name:\tkldtrace\nVmHWM:\t   20000 kB\nVmRSS:\t   12500 kB\n";
        assert_eq!(parse_resident(status), Some(12.8));
        assert_eq!(parse_resident("Name:\tkthreadd\n"), None);
    }

    #[test]
    fn our_own_time_on_cpu_grows() {
        let before = cpu_time(std::process::id()).expect("schedstat");
        while cpu_time(std::process::id()).expect("schedstat") == before {}
    }
}
