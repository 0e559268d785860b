//! How long a scrape takes, by format.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::Bench;
use super::row::{Goal, Row, quantile};
use super::series;
use super::side::daemon;
use crate::{http, sh};

/// Name, `Accept` header and how series are counted.
type Format = (&'static str, &'static str, fn(&[u8]) -> Option<usize>);

const FORMATS: [Format; 3] = [
    ("text", "text/plain;version=0.0.4", |body| {
        Some(series::in_text(body))
    }),
    (
        "OpenMetrics",
        "application/openmetrics-text;version=1.0.0",
        |body| Some(series::in_text(body)),
    ),
    (
        "protobuf",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
        series::in_protobuf,
    ),
];

/// Scrapes in a round.
const SCRAPES: usize = 200;
/// How many series the goal speaks of.
const SERIES: usize = 5_000;
/// Cgroups are added in steps until there are so many series.
const STEP: usize = 50;
const MOST_CGROUPS: usize = 500;

/// The 99th percentile of each round, connection included.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let daemon = daemon(bench, &["*"])?;
    let mut cgroups = Cgroups::find()?;
    let [text, ..] = FORMATS;
    let mut found = scrape(daemon.address(), text)?.1;
    while found < SERIES && cgroups.dirs.len() < MOST_CGROUPS {
        cgroups.add(STEP)?;
        found = scrape(daemon.address(), text)?.1;
        bench.interrupt.check()?;
    }
    let mut rows = Vec::new();
    let mut p99 = vec![Vec::new(); FORMATS.len()];
    let mut size = vec![0; FORMATS.len()];
    for round in 0..bench.rounds {
        for (index, format) in FORMATS.into_iter().enumerate() {
            bench.say("scrape", round, format.0)?;
            let mut times = Vec::with_capacity(SCRAPES);
            for _ in 0..SCRAPES {
                let (time, series) = scrape(daemon.address(), format)?;
                times.push(time);
                size[index] = series;
                bench.interrupt.check()?;
            }
            p99[index].push(quantile(&times, 0.99));
        }
    }
    for ((name, ..), (p99, series)) in FORMATS.into_iter().zip(p99.into_iter().zip(size)) {
        let what = format!("scrape p99, {series} series");
        rows.push(Row::new(&what, &format!("kldtrace {name}"), "ms", p99).goal(Goal::AtMost(10.0)));
    }
    Ok(rows)
}

/// Milliseconds of one scrape, and its series.
fn scrape(address: SocketAddr, (name, accept, count): Format) -> Result<(f64, usize)> {
    let start = Instant::now();
    let response = http::get(address, "/metrics", accept)?;
    let time = start.elapsed().as_secs_f64() * 1e3;
    if response.status != 200 {
        bail!("{name}: status {}", response.status);
    }
    let series = count(&response.body)
        .with_context(|| format!("{name}: not that format: {}", response.content_type))?;
    Ok((time, series))
}

/// Cgroups with a life behind them; removed when this is dropped.
struct Cgroups {
    root: PathBuf,
    dirs: Vec<PathBuf>,
}

impl Cgroups {
    fn find() -> Result<Self> {
        let mounts = sh::read("/proc/self/mounts")?;
        let root = cgroup2(&mounts).context("cgroup v2 is not mounted")?;
        Ok(Self {
            root: root.into(),
            dirs: Vec::new(),
        })
    }

    /// Adds cgroups, and sends a process through them.
    fn add(&mut self, count: usize) -> Result<()> {
        let first = self.dirs.len();
        for number in first..first + count {
            let dir = self.root.join(format!("kldtrace-bench-{number}.scope"));
            fs::create_dir(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            self.dirs.push(dir);
        }
        let program = std::env::current_exe().context("cannot find xtask itself")?;
        let mut wander = Command::new(program);
        wander
            .args(["bench-load", "wander"])
            .args(&self.dirs[first..]);
        sh::run(&mut wander)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for dir in &self.dirs {
            if let Err(error) = fs::remove_dir(dir) {
                eprintln!("warning: {} stays: {error}", dir.display());
            }
        }
    }
}

/// Where /proc/self/mounts says that cgroup v2 is.
fn cgroup2(mounts: &str) -> Option<&str> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cgroup_v2_next_to_v1() {
        let mounts = "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2(mounts), Some("/sys/fs/cgroup/unified"));
        assert_eq!(cgroup2("proc /proc proc rw 0 0\n"), None);
    }
}
