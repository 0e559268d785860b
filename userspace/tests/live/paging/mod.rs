//! From a fault to whoever is told: real daemons, Prometheus and Alertmanager
//! with what kldtrace writes for them, and a receiver that stands in for
//! PagerDuty and Slack.

mod alertmanager;
mod chain;
mod hostile;
mod machine;
mod mail;
mod network;
mod planes;
mod receiver;
mod spool;
mod table;

use std::{collections::BTreeSet, time::Instant};

use self::{chain::Chain, table::median};
use super::common::installed;

#[test]
fn faults_reach_the_right_people() {
    if !installed("prometheus") || !installed("prometheus-alertmanager") {
        return;
    }
    let begun = Instant::now();
    let Some(mut chain) = Chain::start() else {
        return;
    };
    // These two are there from the beginning.
    chain.absent_signal(begun);
    chain.pages(
        begun,
        "nobody takes what is pushed",
        "KldtracePushDown",
        &["#platform"],
        "otlp takes nothing from n-1",
    );
    chain.busy_cpus();
    // Lost entries are remembered longest, so they come early.
    chain.full_spool();
    chain.taken_pushes();
    chain.signal_is_not_wanted();
    chain.slow_disk();
    chain.refused_connects();
    chain.hostile_unit();
    chain.full_accept_queue();
    chain.lossy_link();
    chain.plane_crossing();
    chain.hostile_plane();
    chain.expired_certificate();
    // All but the certificate are over, and each must be forgotten.
    chain.cut_windows();
    chain.resolve();
    chain.goes_on("KldtraceCertificateUrgent");
    chain.renewed_certificate();
    chain.resolve();
    chain.killed_daemon();
    for team in ["storage", "network", "platform"] {
        for subject in ["[FIRING:1]", "[RESOLVED]"] {
            let subjects = chain.mailbox.subjects(&format!("{team}@localhost"));
            let mut words = subjects.iter().filter(|one| one.starts_with(subject));
            assert!(words.next().is_some(), "{subject} to {team}: {subjects:#?}");
        }
    }
    // Prometheus sent it before it knew of Alertmanager: again after a minute.
    chain.receiver.wait("the watchdog", |message| {
        message.to == "watchdog" && message.firing && message.is_about("Watchdog")
    });
    for fault in &chain.faults {
        println!("{fault}");
    }
    let median = median(&chain.faults);
    println!(
        "median {median:.1} s, all in {:.0} s",
        begun.elapsed().as_secs_f64()
    );
    let told = chain.receiver.told.lock().unwrap();
    let keys: BTreeSet<_> = told
        .iter()
        .filter_map(|message| message.key.as_ref())
        .collect();
    // The node, the certificate and the plane, and nothing else of a node that
    // is down.
    assert_eq!(keys.len(), 3, "{told:#?}");
    assert!(median < 20.0, "{median}");
}
