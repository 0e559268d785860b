//! Digests of families that are written here, at times that are made up.

use super::*;

const MINUTE: Duration = Duration::from_mins(1);

fn histogram(buckets: &[(i32, u64)]) -> Histogram {
    let count: u64 = buckets.iter().map(|(_, count)| count).sum();
    Histogram {
        sum_ns: count * 1_000_000_000,
        buckets: buckets.to_vec(),
        ..Histogram::default()
    }
}

/// Families of file operations with these series: dataset, buckets.
fn operations(series: &[(&str, &[(i32, u64)])]) -> Vec<Family> {
    let signal = crate::catalogue::find("zfs.op_latency").unwrap();
    let mut family = crate::signals::families::family(signal);
    family.series = series
        .iter()
        .map(|(dataset, buckets)| Series {
            labels: ["p", dataset, "read", "async"]
                .iter()
                .zip(signal.labels)
                .map(|(&value, &name)| (name.into(), value.into()))
                .collect(),
            value: Value::Histogram(histogram(buckets)),
        })
        .collect();
    vec![family]
}

fn device(buckets: &[(i32, u64)]) -> Vec<Family> {
    let signal = crate::catalogue::find("block.device_latency").unwrap();
    let mut family = crate::signals::families::family(signal);
    family.series = vec![Series {
        labels: vec![
            ("device".into(), "sda".into()),
            ("op".into(), "read".into()),
        ],
        value: Value::Histogram(histogram(buckets)),
    }];
    vec![family]
}

fn digests() -> Digests {
    Digests::new(crate::config::Config::default().objectives)
}

fn values(families: &[Family], metric: &str) -> Vec<Value> {
    let family = families.iter().find(|family| family.name == metric);
    let series = family.unwrap().series.iter();
    series.map(|series| series.value.clone()).collect()
}

#[test]
fn counts_and_misses_are_of_all_datasets() {
    // 2^(-24/8) is 0.125 s: the bucket -24 ends there.
    let families = operations(&[("a", &[(-25, 3), (-24, 4), (-23, 5)]), ("b", &[(0, 2)])]);
    let made = digests().of(&families, Instant::now());
    assert_eq!(
        values(&made, "kldtrace_zfs_operations"),
        [Value::Integer(14)]
    );
    let misses = "kldtrace_zfs_operations_over_objective";
    assert_eq!(values(&made, misses), [Value::Integer(7)]);
    let family = made.iter().find(|family| family.name == misses).unwrap();
    let labels: Vec<_> = family.series[0]
        .labels
        .iter()
        .map(|(k, v)| (&**k, &**v))
        .collect();
    assert_eq!(labels, [("pool", "p"), ("over", "0.125")]);
}

#[test]
fn sums_do_not_shrink_when_a_series_leaves_or_begins_anew() {
    let mut digests = digests();
    let mut count = |series: &[(&str, &[(i32, u64)])]| {
        let made = digests.of(&operations(series), Instant::now());
        values(&made, "kldtrace_zfs_operations")
    };
    assert_eq!(
        count(&[("a", &[(0, 10)]), ("b", &[(0, 5)])]),
        [Value::Integer(15)]
    );
    assert_eq!(count(&[("a", &[(0, 11)])]), [Value::Integer(16)]);
    assert_eq!(
        count(&[("a", &[(0, 2)]), ("b", &[(0, 1)])]),
        [Value::Integer(19)]
    );
    // Nothing is left of the pool.
    assert!(count(&[]).is_empty());
    assert_eq!(count(&[("a", &[(0, 1)])]), [Value::Integer(1)]);
}

#[test]
fn a_quantile_is_of_its_window() {
    let mut digests = digests();
    let start = Instant::now();
    let mut p99 = |minutes: u32, buckets: &[(i32, u64)]| {
        let made = digests.of(&device(buckets), start + minutes * MINUTE);
        let values = values(&made, "kldtrace_block_device_p99_seconds");
        values.into_iter().next().map(|value| match value {
            Value::Float(seconds) => seconds,
            other => panic!("{other:?}"),
        })
    };
    let [fast, slow] = [-80, 0].map(|index| Some(crate::quantile::middle(index)));
    assert_eq!(p99(1, &[(-80, 100)]), fast);
    // The slow ones came between 1 and 2: from 8 on, what is looked back to is 2 or later.
    for minute in 2..8 {
        assert_eq!(p99(minute, &[(-80, 100), (0, 2)]), slow, "{minute}");
    }
    for minute in 8..14 {
        assert_eq!(p99(minute, &[(-80, 200), (0, 2)]), fast, "{minute}");
    }
    assert_eq!(p99(14, &[(-80, 200), (0, 2)]), None);
    // Nobody asked for long: it is of all that nobody was told.
    assert_eq!(p99(60, &[(-80, 200), (0, 50)]), slow);
    assert_eq!(p99(61, &[(-80, 300), (0, 50)]), fast);
}

#[test]
fn trouble_is_told_from_its_first_count_for_as_long_as_it_is_recent() {
    let mut digests = digests();
    let start = Instant::now();
    let mut errors = |minutes: u32, count: Option<u64>| {
        let signal = crate::catalogue::find("block.errors").unwrap();
        let mut family = crate::signals::families::family(signal);
        family.series.extend(count.map(|count| Series {
            labels: vec![
                ("device".into(), "sda".into()),
                ("op".into(), "read".into()),
            ],
            value: Value::Integer(count),
        }));
        let made = digests.of(&[family], start + minutes * MINUTE);
        values(&made, "kldtrace_block_errors_recent")
    };
    assert!(errors(1, None).is_empty());
    // Its series begins with it.
    assert_eq!(errors(2, Some(3)), [Value::Integer(3)]);
    for minute in 3..17 {
        assert_eq!(errors(minute, Some(4)), [Value::Integer(4)], "{minute}");
    }
    for minute in 17..21 {
        errors(minute, Some(4));
    }
    assert!(errors(22, Some(4)).is_empty());
    // Nobody asked for an hour: nothing of it is lost.
    assert_eq!(errors(90, Some(9)), [Value::Integer(5)]);
}

#[test]
fn a_shorter_window_forgets_sooner() {
    let mut digests = digests();
    let start = Instant::now();
    let mut p99 = |seconds: u64, buckets: &[(i32, u64)]| {
        if seconds == 61 {
            digests.follow(Objectives {
                look_back: Duration::from_secs(10),
                ..crate::config::Config::default().objectives
            });
        }
        let now = start + Duration::from_secs(seconds);
        let made = digests.of(&device(buckets), now);
        !values(&made, "kldtrace_block_device_p99_seconds").is_empty()
    };
    assert!(p99(59, &[(0, 2)]));
    assert!(p99(60, &[(0, 3)]));
    // What came since then is nothing; of less than a window nothing else is known.
    assert!(!p99(61, &[(0, 3)]));
    assert!(p99(62, &[(0, 4)]));
    for second in 63..80 {
        assert_eq!(p99(second, &[(0, 4)]), second < 73, "{second}");
    }
}

#[test]
fn rates_are_of_the_time_that_they_are_of() {
    let mut digests = digests();
    let start = Instant::now();
    let mut rate = |minutes: u32, count: u64| {
        let signal = crate::catalogue::find("tcp.resets_sent").unwrap();
        let mut family = crate::signals::families::family(signal);
        family.series = ["eth0", "eth1"]
            .map(|interface| Series {
                labels: vec![
                    ("unit".into(), "u".into()),
                    ("interface".into(), interface.into()),
                ],
                value: Value::Integer(count),
            })
            .into();
        let made = digests.of(&[family], start + minutes * MINUTE);
        match values(&made, "kldtrace_tcp_unit_resets_sent_per_second")[..] {
            // The clock of the digests began a moment before.
            [Value::Float(rate)] => Some((rate * 1e3).round() / 1e3),
            [] => None,
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(rate(1, 60), Some(2.0));
    assert_eq!(rate(4, 120), Some(1.0));
    // Looked back to is minute 4.
    assert_eq!(rate(10, 120), None);
}

/// A family of a signal with these series: values of its labels, value.
fn of(name: &str, series: &[(&[&str], Value)]) -> Family {
    let signal = crate::catalogue::find(name).unwrap();
    let mut family = crate::signals::families::family(signal);
    family.series = series
        .iter()
        .map(|(values, value)| Series {
            labels: signal
                .labels
                .iter()
                .zip(*values)
                .map(|(&name, &value)| (name.into(), value.into()))
                .collect(),
            value: value.clone(),
        })
        .collect();
    family
}

#[test]
fn the_time_of_all_programs_does_not_shrink_when_one_is_detached() {
    let mut digests = digests();
    let mut time = |programs: &[(&[&str], Value)]| {
        let made = digests.of(&[of("self.probe_run_time", programs)], Instant::now());
        match values(&made, "kldtrace_all_probes_run_seconds")[..] {
            [Value::Float(seconds)] => format!("{seconds:.6}"),
            ref other => panic!("{other:?}"),
        }
    };
    let a = |seconds| (&["a"][..], Value::Float(seconds));
    let b = |seconds| (&["b"][..], Value::Float(seconds));
    assert_eq!(time(&[a(1.5), b(0.25)]), "1.750000");
    assert_eq!(time(&[a(2.0)]), "2.250000");
    assert_eq!(time(&[a(2.0), b(0.125)]), "2.375000");
}

#[test]
fn what_goes_to_other_was_counted_before() {
    let mut digests = digests();
    let mut sent = |series: &[(&[&str], u64)]| {
        let series: Vec<_> = series
            .iter()
            .map(|&(labels, count)| (labels, Value::Integer(count)))
            .collect();
        let families = [of("tcp.retransmitted_segments", &series)];
        let made = digests.of(&families, Instant::now());
        let metric = "kldtrace_tcp_retransmitted_data_segments";
        let family = made.iter().find(|family| family.name == metric).unwrap();
        let of = |series: &Series| match series.value {
            Value::Integer(count) => (series.labels[0].1.to_string(), count),
            ref other => panic!("{other:?}"),
        };
        family.series.iter().map(of).collect::<BTreeMap<_, _>>()
    };
    let [a, b] = ["a", "b"].map(|unit| [unit, "eth0", "ipv4", "data"]);
    let other = ["other", "", "", "data"];
    let labels = crate::catalogue::find("tcp.retransmitted_segments").unwrap();
    assert_eq!(labels.labels, ["unit", "interface", "family", "kind"]);
    let is = |eth0, other: Option<u64>| {
        let other = other.map(|count| (String::new(), count));
        let eth0 = ("eth0".to_owned(), eth0);
        other.into_iter().chain([eth0]).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(sent(&[(&a, 10), (&b, 5)]), is(15, None));
    // The five of b, and two of the rest's own.
    assert_eq!(sent(&[(&a, 11), (&other, 7)]), is(16, Some(2)));
    assert_eq!(sent(&[(&a, 11), (&other, 8)]), is(16, Some(3)));
}

#[test]
fn what_was_sent_before_the_daemon_began_is_not_of_the_last_minutes() {
    let mut digests = digests();
    let start = Instant::now();
    let mut sent = |minute: u32, peers: &[(&str, u64)]| {
        let peers: Vec<_> = peers
            .iter()
            .map(|&(peer, bytes)| (["wg0", "storage", peer], Value::Integer(bytes)))
            .collect();
        let peers: Vec<_> = peers
            .iter()
            .map(|(labels, bytes)| (&labels[..], bytes.clone()))
            .collect();
        let families = [of("wireguard.sent_bytes", &peers)];
        let made = digests.of(&families, start + minute * MINUTE);
        values(&made, "kldtrace_wireguard_sent_5m_bytes")
    };
    assert!(sent(0, &[("a", 1000)]).is_empty());
    // The peer b is new.
    let both = [Value::Integer(5), Value::Integer(7)];
    assert_eq!(sent(1, &[("a", 1005), ("b", 7)]), both);
    assert!(sent(9, &[("a", 1005), ("b", 7)]).is_empty());
}

#[test]
fn only_what_is_trouble_is_a_loss() {
    let counts = [("tcp_series", 30), ("tcp_accept", 60), ("event", 0)];
    let counts = counts.map(|(reason, count)| ([reason], Value::Integer(count)));
    let counts: Vec<_> = counts
        .iter()
        .map(|(reason, count)| (&reason[..], count.clone()))
        .collect();
    let made = digests().of(&[of("self.losses", &counts)], Instant::now());
    let family = &made[0];
    assert_eq!(family.name, "kldtrace_losses_per_second");
    assert_eq!(family.series.len(), 1, "{family:?}");
    assert_eq!(&*family.series[0].labels[0].1, "tcp_series");
}

#[test]
fn sessions_expire_three_minutes_after_their_handshake() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let ago = |seconds| Value::Float(now.as_secs_f64() - f64::from(seconds));
    let old = (&["wg0", "storage", "old"][..], ago(185));
    let new = (&["wg0", "storage", "new"][..], ago(170));
    let sessions = of("wireguard.last_handshake", &[new, old.clone()]);
    let made = digests().of(&[sessions], Instant::now());
    let expired = of("wireguard.last_handshake", &[old]).series;
    assert_eq!(made[0].series, expired);
    assert_eq!(
        made[0].name,
        "kldtrace_wireguard_expired_session_timestamp_seconds"
    );
}

#[test]
fn who_does_not_answer_loses_nothing() {
    let mut digests = digests();
    let now = Instant::now();
    digests.of(&operations(&[("a", &[(0, 10)])]), now);
    assert!(digests.of(&[], now).is_empty());
    let made = digests.of(&operations(&[("a", &[(0, 12)])]), now);
    assert_eq!(
        values(&made, "kldtrace_zfs_operations"),
        [Value::Integer(12)]
    );
}

#[test]
fn objectives_are_rounded_up_to_a_bound() {
    for (milliseconds, over) in [
        (125, "0.125"),
        (126, "0.1363"),
        (1, "0.001065"),
        (900_000, "939"),
    ] {
        let index = bucket(Duration::from_millis(milliseconds));
        let bound = Histogram::upper_bound(index);
        assert!(bound * 1000.0 >= milliseconds as f64 && bound * 917.0 < milliseconds as f64);
        assert_eq!(spelled(bound), over);
    }
}
