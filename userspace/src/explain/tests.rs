//! A node with one dataset whose log is slow and one that reads.

use kldtrace_exporters::model::{Kind, Series, Unit, Value};

use super::*;

fn buckets(buckets: &[(i32, u64)]) -> Histogram {
    let sum: f64 = buckets
        .iter()
        .map(|(index, count)| crate::quantile::middle(*index) * 1e9 * *count as f64)
        .sum();
    Histogram {
        sum_ns: format!("{sum:.0}").parse().unwrap(),
        buckets: buckets.to_vec(),
        ..Histogram::default()
    }
}

fn of_sum(sum_ns: u64, count: u64) -> Histogram {
    Histogram {
        sum_ns,
        buckets: vec![(-60, count)],
        ..Histogram::default()
    }
}

fn family(signal: &str, series: Vec<(&[&str], Histogram)>) -> Family {
    let signal = catalogue::find(signal).unwrap();
    let series = series.into_iter().map(|(values, histogram)| Series {
        labels: signal
            .labels
            .iter()
            .zip(values)
            .map(|(name, value)| ((*name).into(), Arc::from(*value)))
            .collect(),
        value: Value::Histogram(histogram),
    });
    Family {
        name: signal.metric.into(),
        help: "".into(),
        kind: Kind::Histogram,
        unit: Unit::Seconds,
        series: series.collect(),
    }
}

/// After `n` equal intervals: fsyncs of 33 ms or so with 1 in 30 of 41 ms, and
/// reads of which a tenth waits for a disk.
pub(crate) fn node(n: u64) -> Vec<Family> {
    let pg = ["rpool", "rpool/pg"];
    let data = ["tank", "tank/data"];
    let stage = |[pool, dataset]: [&'static str; 2], op, stage| [pool, dataset, op, stage];
    let fsync = buckets(&[(-39, 29 * n), (-36, n)]);
    let all = fsync.sum_ns;
    let read = of_sum(500_000_000 * n, 1000 * n);
    vec![
        family(
            "zfs.op_latency",
            vec![
                (&[pg[0], pg[1], "fsync", "sync"], fsync),
                (&[data[0], data[1], "read", "async"], read),
            ],
        ),
        family(
            "zfs.stage_latency",
            vec![
                (
                    &stage(pg, "fsync", "zil_commit"),
                    of_sum(all / 10 * 9, 30 * n),
                ),
                (&stage(pg, "fsync", "cpu"), of_sum(all / 10, 30 * n)),
                (
                    &stage(data, "read", "arc_miss"),
                    of_sum(300_000_000 * n, 100 * n),
                ),
                (
                    &stage(data, "read", "other_wait"),
                    of_sum(50_000_000 * n, 100 * n),
                ),
            ],
        ),
        family(
            "zfs.log_queue_latency",
            vec![
                (
                    &[pg[0], pg[1], "nvme1n1", "main"],
                    buckets(&[(-72, 30 * n)]),
                ),
                (
                    &[data[0], data[1], "nvme2n1", "slog"],
                    buckets(&[(0, 30 * n)]),
                ),
            ],
        ),
        family(
            "zfs.log_device_latency",
            vec![
                (
                    &[pg[0], pg[1], "nvme1n1", "main"],
                    buckets(&[(-39, 30 * n)]),
                ),
                (&[pg[0], pg[1], "nvme3n1", "main"], buckets(&[(-80, n)])),
            ],
        ),
        family(
            "zfs.vdev_device_latency",
            vec![
                (
                    &["tank", "sda", "read", "sync_read"],
                    buckets(&[(-56, 100 * n)]),
                ),
                (&["tank", "sdb", "read", "scrub"], buckets(&[(0, 100 * n)])),
                (
                    &["rpool", "sdc", "read", "sync_read"],
                    buckets(&[(0, 100 * n)]),
                ),
            ],
        ),
        family(
            "zfs.txg_time",
            vec![
                (&["tank", "sync"], buckets(&[(-8, 2 * n)])),
                (&["tank", "open"], buckets(&[(18, 2 * n)])),
            ],
        ),
    ]
}

fn slow(id: u64, labels: [&str; 3], total: f64, stages: &[(&'static str, f64)]) -> Event {
    let fields = stages
        .iter()
        .map(|(stage, seconds)| (format!("{stage}_seconds").into(), Field::Float(*seconds)));
    let [pool, dataset, op] = labels;
    Event {
        id,
        time_ns: 0,
        subject: "zfs".into(),
        kind: "slow_operation".into(),
        labels: vec![
            ("pool".into(), pool.into()),
            ("dataset".into(), dataset.into()),
            ("op".into(), op.into()),
        ],
        fields: std::iter::once(("duration_seconds".into(), Field::Float(total)))
            .chain(fields)
            .collect(),
        message: String::new(),
    }
}

/// Ten fsyncs of about 41 ms, of which seven were told, and others that are
/// not of the tail or not of the group.
pub(crate) fn events() -> Vec<Event> {
    let pg = ["rpool", "rpool/pg", "fsync"];
    let mut events: Vec<_> = [0.0415, 0.0421, 0.0410, 0.0409, 0.0425, 0.0430, 0.0435]
        .into_iter()
        .zip(1..)
        .map(|(total, id)| {
            let rest = total - 0.038;
            let cpu = rest - 0.0002;
            slow(
                id,
                pg,
                total,
                &[("zil_commit", 0.038), ("cpu", cpu), ("runqueue", 0.0002)],
            )
        })
        .collect();
    events.push(slow(8, pg, 0.030, &[("cpu", 0.030)]));
    events.push(slow(9, ["rpool", "rpool/x", "fsync"], 0.9, &[("cpu", 0.9)]));
    events.push(slow(
        10,
        ["tank", "tank/data", "read"],
        0.9,
        &[("cpu", 0.9)],
    ));
    events
}

pub(crate) fn request(by: &[&str]) -> Request {
    let by = by.iter().map(ToString::to_string).collect();
    Request::new(by, Vec::new(), "p99".parse().unwrap()).unwrap()
}

fn groups(request: &Request, events: &[Event]) -> Vec<Group> {
    explain(request, &node(2), &node(12), events)
}

fn stages(group: &Group) -> Vec<(&str, f64)> {
    let stages = group.stages.iter();
    stages
        .map(|one| (one.stage, (one.share * 1000.0).round() / 1000.0))
        .collect()
}

#[test]
fn the_middle_one_of_the_slow_speaks_for_them() {
    let groups = groups(&request(&[]), &events());
    let fsync = &groups[0];
    assert_eq!((fsync.count, fsync.tail), (300, 10));
    let basis = Basis::Operation {
        event: 2,
        seconds: 0.0421,
        known: 7,
    };
    assert_eq!(fsync.basis, basis);
    assert_eq!(stages(fsync)[0], ("zil_commit", 0.903));
    let sum: f64 = fsync.stages.iter().map(|one| one.seconds).sum();
    assert!((sum - 0.0421).abs() < 1e-9);
}

#[test]
fn few_events_do_not_speak_for_many_operations() {
    // One of thousands of reads at or above p99 was told.
    let groups = groups(&request(&[]), &events());
    let read = &groups[1];
    assert_eq!(read.basis, Basis::Sums);
    // 150 ms of 500 are in no stage: reads that never left the CPU.
    assert_eq!(
        stages(read),
        [("arc_miss", 0.6), ("cpu", 0.3), ("other_wait", 0.1)]
    );
}

#[test]
fn evidence_is_of_the_group_only() {
    let groups = groups(&request(&[]), &[]);
    let [Evidence::LogWrites(log)] = &groups[0].evidence[..] else {
        panic!("{:?}", groups[0].evidence);
    };
    assert_eq!(
        (&*log.vdev, log.slog, log.count, log.others),
        ("nvme1n1", Some(false), 300, 1)
    );
    let [Evidence::Reads(reads)] = &groups[1].evidence[..] else {
        panic!("{:?}", groups[1].evidence);
    };
    assert_eq!(
        (&*reads.vdev, reads.slog, reads.count, reads.others),
        ("sda", None, 1000, 0)
    );
}

#[test]
fn throttled_writes_look_at_transaction_groups() {
    let mut after = node(3);
    let write = ["tank", "tank/data", "write"];
    after[0].series.push(
        family(
            "zfs.op_latency",
            vec![(
                &["tank", "tank/data", "write", "async"],
                of_sum(5_000_000_000, 10),
            )],
        )
        .series
        .remove(0),
    );
    let slow = slow(1, write, 0.5, &[("throttle", 0.4), ("cpu", 0.1)]);
    let request = Request::new(
        Vec::new(),
        vec!["op=wri*".parse().unwrap()],
        "p50".parse().unwrap(),
    );
    let request = request.unwrap();
    let groups = explain(&request, &node(1), &after, &vec![slow; 5]);
    assert_eq!(groups.len(), 1);
    let [Evidence::Syncs { count: 4, .. }] = groups[0].evidence[..] else {
        panic!("{:?}", groups[0].evidence);
    };
    let sentences = groups[0].sentences(request.quantile);
    assert!(
        sentences[0].contains("was write throttle, while 4 transaction groups synced, p50 479ms"),
        "{sentences:?}"
    );
}

#[test]
fn groups_may_be_wider_than_a_dataset() {
    let by_op = groups(&request(&["op"]), &events());
    assert_eq!(
        by_op[0].headline("p99".parse().unwrap()),
        "fsync: p99 42.3ms over 300 operations"
    );
    let by_pool = groups(&request(&["pool"]), &[]);
    assert_eq!(by_pool[1].labels, [("pool".to_owned(), "tank".into())]);
    assert_eq!(stages(&by_pool[1])[0], ("arc_miss", 0.6));
}

#[test]
fn without_stages_it_says_so() {
    let mut after = node(12);
    after.remove(1);
    let groups = explain(&request(&[]), &node(2), &after, &[]);
    assert_eq!(groups[0].basis, Basis::None);
    let sentences = groups[0].sentences("p99".parse().unwrap());
    assert!(
        sentences[0].contains("zfs.stage_latency is absent"),
        "{sentences:?}"
    );
}

#[test]
fn labels_that_operations_do_not_have_are_refused() {
    let quantile: Quantile = "p99".parse().unwrap();
    let by = Request::new(vec!["vdev".to_owned()], Vec::new(), quantile);
    assert!(by.unwrap_err().contains("pool, dataset, op"));
    let filter = Request::new(Vec::new(), vec!["stage=cpu".parse().unwrap()], quantile);
    assert!(filter.is_err());
}

#[test]
fn hostile_events_and_histograms_do_no_harm() {
    let hostile = [f64::NAN, f64::INFINITY, -1.0, 0.0];
    let events: Vec<_> = hostile
        .into_iter()
        .map(|time| {
            slow(
                1,
                ["rpool", "rpool/pg", "fsync"],
                time,
                &[("cpu", time), ("zil_commit", time)],
            )
        })
        .collect();
    let full = Histogram {
        sum_ns: u64::MAX,
        zero: u64::MAX,
        buckets: vec![(i32::MIN, u64::MAX), (i32::MAX, u64::MAX)],
        overflow: u64::MAX,
        exemplars: Vec::new(),
    };
    let mut after = node(3);
    for family in &mut after {
        for series in &mut family.series {
            series.value = Value::Histogram(full.clone());
        }
    }
    for group in explain(&request(&[]), &[], &after, &events) {
        assert!(!group.sentences("p99".parse().unwrap()).is_empty());
    }
}
