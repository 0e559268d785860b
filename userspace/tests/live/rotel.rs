//! What the kernel counted arrives at a receiver that somebody else wrote.

#[path = "../../../exporters/tests/otlp/rotel/agent.rs"]
#[allow(dead_code, reason = "the exporters' tests use more of it")]
mod agent;

use std::path::Path;

use kldtrace_exporters::model::Histogram;

use self::agent::{Bucket, Rotel, are, bucket};
use super::{
    common::{Daemon, sh, wait_for},
    load::Cgroup,
};

const METRIC: &str = "kldtrace_sched_runqueue_latency_seconds";

fn configuration(spool: &Path, port: u16) -> String {
    format!(
        "[spool]\ndirectory = \"{}\"\nsize = \"8MiB\"\n\
         [otlp]\nurl = \"http://127.0.0.1:{port}\"\nprotocol = \"grpc\"\ninterval = \"1s\"\n\
         batch_age = \"10ms\"\n[signals]\nenable = [\"sched.runqueue_latency\"]",
        spool.display()
    )
}

/// A point of the histogram as it was printed.
#[derive(Debug, Default)]
struct Point {
    count: u64,
    sum: f64,
    buckets: Vec<Bucket>,
}

/// The newest point of a unit and reason.
fn newest(says: &str, unit: &str, reason: &str) -> Option<Point> {
    let metric = format!("     -> Name: {}", METRIC.strip_suffix("_seconds")?);
    let labels = format!("     -> unit: Str({unit})\n     -> reason: Str({reason})\n");
    let (_, from) = says.rsplit_once(&labels)?;
    // Of this metric, the only one that has these labels.
    assert!(says.contains(&metric));
    // What is printed last may not be whole yet.
    let mut whole = from.split_inclusive('\n').map(str::trim_end);
    let mut point = Point::default();
    loop {
        let line = whole.next()?;
        if let Some(count) = line.strip_prefix("Count: ") {
            point.count = count.parse().ok()?;
        } else if let Some(sum) = line.strip_prefix("Sum: ") {
            point.sum = sum.parse().ok()?;
        } else if let Some(bucket) = bucket(line) {
            point.buckets.push(bucket);
        } else if !line.contains("Timestamp: ") {
            return Some(point);
        }
    }
}

/// Whether it is the histogram that the daemon has.
fn is(point: &Point, histogram: &Histogram) -> bool {
    let zero = (histogram.zero > 0).then_some((0.0, 0.0, histogram.zero));
    let buckets = histogram.buckets.iter().map(|(index, count)| {
        let bound = Histogram::upper_bound;
        (bound(index - 1), bound(*index), *count)
    });
    let expected: Vec<_> = zero.into_iter().chain(buckets).collect();
    let sum = histogram.sum_seconds();
    point.count == histogram.count()
        && (point.sum - sum).abs() <= sum * 1e-9
        && are(&point.buckets, &expected)
}

#[test]
fn what_the_scheduler_counted_is_there_bucket_by_bucket() {
    let Some(rotel) = Rotel::start() else {
        return;
    };
    let spool = tempfile::tempdir().unwrap();
    let config = configuration(spool.path(), rotel.grpc);
    let Some(daemon) = Daemon::start(&config) else {
        return;
    };
    let cgroup = Cgroup::new("rotel");
    // Thirty wake-ups and more, and then nobody: the numbers stand still.
    sh(&format!(
        "echo $$ > {}/cgroup.procs; for i in $(seq 30); do sleep 0.001; done",
        cgroup.path.display()
    ));
    let labels = [("unit", &*cgroup.unit), ("reason", "wakeup")];
    let counted = || daemon.families("sched").histogram(METRIC, &labels);
    wait_for("wake-ups", || counted().count() >= 30);
    let histogram = counted();
    wait_for("the same at the receiver", || {
        let point = newest(&rotel.says(), &cgroup.unit, "wakeup");
        point.is_some_and(|point| is(&point, &histogram))
    });
    assert_eq!(counted(), histogram, "it stood still");
    println!(
        "{} wake-ups in {} buckets",
        histogram.count(),
        histogram.buckets.len()
    );
}
