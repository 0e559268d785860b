//! From a fault to whoever is told: a real daemon, Prometheus and Alertmanager
//! with what kldtrace writes for them, and a receiver that stands in for
//! PagerDuty and Slack.

mod causes;
mod chain;
mod receiver;

use std::collections::BTreeSet;

use serde_json::Value;

use self::chain::Chain;
use super::common::installed;

/// How a message to PagerDuty begins and ends something.
const TRIGGER: &str = "\"event_action\":\"trigger\"";
const RESOLVE: &str = "\"event_action\":\"resolve\"";

#[test]
fn faults_reach_the_right_people() {
    if !installed("prometheus") || !installed("prometheus-alertmanager") {
        return;
    }
    let Some(mut chain) = Chain::start() else {
        return;
    };
    // A kernel without ZFS does not serve its signals.
    let zfs = [("signal", "zfs.op_latency")];
    let own = chain.daemon.families("self");
    if own.integer("kldtrace_signal_available", &zfs) == 0 {
        chain.told("KldtraceSignalAbsent");
    }
    // Nobody takes what is pushed.
    chain.told("KldtracePushDown");
    chain.slow_disk();
    chain.refused_connects();
    chain.full_accept_queue();
    chain.expired_certificate();
    chain.busy_cpus();
    chain.killed_daemon();
    // Prometheus sent it before it knew of Alertmanager: again after a minute.
    chain.receiver.wait("/watchdog", "Watchdog", "firing");
    let told = chain.receiver.told.lock().unwrap();
    let pages = told.iter().filter(|(to, _)| to == "/pagerduty");
    let keys: BTreeSet<_> = pages
        .map(|(_, body)| {
            let page: Value = serde_json::from_str(body).unwrap();
            page["dedup_key"].as_str().unwrap().to_owned()
        })
        .collect();
    // The node and the certificate, and nothing else of a node that is down.
    assert_eq!(keys.len(), 2, "{told:?}");
}
