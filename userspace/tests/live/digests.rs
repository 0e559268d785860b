//! What is made of histograms, against them and against what was done.

use std::{
    thread,
    time::{Duration, Instant},
};

use kldtrace::config::{Config, Objectives};
use kldtrace_exporters::model::Value;

use crate::{
    common::Probes,
    digested::{compare, one, seconds},
    disk::{BLOCK, Loop, read},
    net::{self, Family as Ip, Lab},
};

#[test]
fn what_is_made_of_histograms_is_what_they_say() {
    const CONNECTS: u64 = 10;
    const READS: u64 = 200;
    let signals = [
        "sched.runqueue_latency",
        "sched.offcpu_time",
        "tcp.connect_latency",
        "tcp.srtt",
        "block.device_latency",
    ];
    let Some(mut probes) = Probes::attach(&signals) else {
        return;
    };
    // Less than the line takes, which is 10 ms.
    probes.0.set_objectives(Objectives {
        tcp_connect: Duration::from_millis(4),
        ..Config::default().objectives
    });
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("image");
    std::fs::write(&image, vec![1; 1024 * BLOCK]).unwrap();
    let device = Loop::on(&image);
    let disk = device.open(0);
    let lab = Lab::delayed(Duration::from_millis(5));
    let _listeners = Ip::BOTH.map(|family| lab.server.listen(family));
    let mut seen = Vec::new();
    let mut longest = Duration::ZERO;
    for round in 1..=2 {
        for block in 0..READS {
            read(&disk, block).unwrap();
        }
        for family in Ip::BOTH {
            for _ in 0..CONNECTS / 2 {
                let socket = lab.client.socket(family);
                let began = Instant::now();
                net::connect(&socket, family.server()).unwrap();
                longest = longest.max(began.elapsed());
            }
        }
        thread::sleep(Duration::from_millis(50));
        let families = probes.0.exported(Duration::MAX).unwrap();
        let compared = compare(&families);
        println!("{compared:?}");
        let value = |metric: &str, wanted: &[(&str, &str)]| one(&families, metric, wanted);
        let [_, interface, _] = lab.client.labels(Ip::V4);
        let over = ("over", "0.00426");
        let expected = Value::Integer(round * CONNECTS);
        assert_eq!(value("kldtrace_tcp_connects", &[interface]), expected);
        assert_eq!(
            value("kldtrace_tcp_connects_over_objective", &[interface, over]),
            expected
        );
        let p99 = seconds(&value("kldtrace_tcp_connect_p99_seconds", &[interface]));
        // The middle of a bucket.
        let longest = longest.as_secs_f64() * 1.05;
        assert!((0.0095..longest).contains(&p99), "{p99} {longest}");
        let read = [("device", &*device.name), ("op", "read")];
        let p99 = seconds(&value("kldtrace_block_device_p99_seconds", &read));
        assert!(p99 > 0.0, "{p99}");
        let p99 = seconds(&value("kldtrace_sched_runqueue_p99_seconds", &[]));
        assert!(p99 > 0.0, "{p99}");
        for metric in [
            "kldtrace_sched_uninterruptible_tasks",
            "kldtrace_tcp_received_segments",
        ] {
            assert!(compared.contains_key(metric), "{metric}");
        }
        seen.push(compared);
    }
    assert!(seen[1].values().sum::<usize>() >= seen[0].values().sum());
}
