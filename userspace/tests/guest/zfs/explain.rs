//! `kldtrace latency zfs --explain` and `kldtrace events` against what was put
//! in.

use std::{fs::File, io::Write as _};

use kldtrace::{
    catalogue,
    explain::{Basis, Evidence, Request, SIGNALS, explain},
};

use super::{super::common::sh, Pool, attach};

#[test]
fn zfs_explains_a_slow_log_by_its_vdev() {
    // Two vdevs, of which the log is one: what is slow has a name.
    sh("rm -f /tmp/why-log; truncate -s 128M /tmp/why-log");
    let Some(pool) = Pool::make("why", 1, "log /tmp/why-log") else {
        return;
    };
    let mut probes = attach(&SIGNALS);
    let mut file = File::create(pool.file("file")).unwrap();
    let mut save = || {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
    };
    // The first one makes the intent log, and waits for a transaction group.
    save();
    probes.0.drain().unwrap();
    probes.0.take_events();
    pool.delay("/tmp/why-log", 40);
    let before = probes.snapshot();
    (0..20).for_each(|_| save());
    let after = probes.snapshot();
    Pool::heal();
    let events = probes.0.take_events();

    for event in &events {
        assert!(catalogue::told(event).is_some(), "{event:?}");
    }
    let filter = vec!["dataset=why/data".parse().unwrap()];
    let quantile = "p50".parse().unwrap();
    let request = Request::new(Vec::new(), filter, quantile).unwrap();
    let groups = explain(&request, &before.0, &after.0, &events);
    let fsync = groups
        .iter()
        .find(|group| group.labels.iter().any(|(_, value)| &**value == "fsync"))
        .unwrap();
    println!("{}", fsync.headline(quantile));
    println!("{:#?}", fsync.sentences(quantile));
    assert_eq!(fsync.count, 20);
    // Each of them is over the threshold, so each has told its own stages.
    let Basis::Operation { seconds, known, .. } = fsync.basis else {
        panic!("{:?}", fsync.basis);
    };
    assert_eq!(known, fsync.tail);
    assert!(known >= 10);
    let stages: f64 = fsync.stages.iter().map(|one| one.seconds).sum();
    assert!((stages - seconds).abs() < 1e-6);
    assert_eq!(fsync.stages[0].stage, "zil_commit");
    assert!(fsync.stages[0].seconds >= 0.04, "{:?}", fsync.stages);
    let Some(Evidence::LogWrites(log)) = fsync.evidence.first() else {
        panic!("{:?}", fsync.evidence);
    };
    assert_eq!((&*log.vdev, log.slog), ("/tmp/why-log", Some(true)));
    // A bucket is 9 % wide, and its middle is shown.
    assert!(log.device >= 0.04 / 1.05, "{log:?}");
    let sentence = &fsync.sentences(quantile)[0];
    assert!(sentence.contains("was ZIL commit, waiting for vdev /tmp/why-log (SLOG)"));
}

#[test]
fn zfs_explains_by_sums_what_no_event_tells() {
    let Some(pool) = Pool::make("sums", 1, "") else {
        return;
    };
    let mut probes = attach(&SIGNALS);
    let mut file = File::create(pool.file("file")).unwrap();
    let mut save = || {
        file.write_all(&[1; 4096]).unwrap();
        file.sync_all().unwrap();
    };
    // The first one makes the intent log, and waits for a transaction group.
    save();
    pool.delay(&pool.vdevs[0], 40);
    let before = probes.snapshot();
    (0..5).for_each(|_| save());
    let after = probes.snapshot();
    Pool::heal();
    let filter = vec![
        "op=fsync".parse().unwrap(),
        "dataset=sums/*".parse().unwrap(),
    ];
    let request = Request::new(Vec::new(), filter, "p99".parse().unwrap()).unwrap();
    // As if no operation had been slow enough to be told.
    let groups = explain(&request, &before.0, &after.0, &[]);
    let [fsync] = &groups[..] else {
        panic!("{groups:?}");
    };
    assert_eq!((fsync.count, fsync.basis), (5, Basis::Sums));
    let sum: f64 = fsync.stages.iter().map(|one| one.seconds).sum();
    assert!((sum - fsync.sum_ns as f64 / 1e9).abs() < 1e-6, "{fsync:?}");
    assert_eq!(fsync.stages[0].stage, "zil_commit");
    let Some(Evidence::LogWrites(log)) = fsync.evidence.first() else {
        panic!("{:?}", fsync.evidence);
    };
    assert_eq!((&*log.vdev, log.slog), (&*pool.vdevs[0], Some(false)));
}
