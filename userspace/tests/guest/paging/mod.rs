//! From a fault of a module to whoever is told, all of it in the guest: the
//! daemon, Prometheus and Alertmanager with what kldtrace writes for them, and
//! a receiver that stands in for PagerDuty and Slack.

#[path = "../../live/paging/alertmanager.rs"]
mod alertmanager;
#[path = "../../live/paging/mail.rs"]
#[expect(dead_code, reason = "mails are the live test's subject")]
mod mail;
#[path = "../../live/paging/receiver.rs"]
#[expect(dead_code, reason = "the live test looks at what pages are known by")]
mod receiver;

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use self::{
    alertmanager::{Alertmanager, export},
    mail::Mailbox,
    receiver::Receiver,
};
use crate::{
    common::{Daemon, installed, sh},
    machine::module,
    prometheus::Prometheus,
    wireguard::net::Pair,
    zfs::Pool,
};

/// How long each request to the slow side of the mirror takes, in milliseconds.
const DELAY: u64 = 200;

/// REJECT_AFTER_TIME of WireGuard's whitepaper (6.1), and a scrape.
const SESSION: Duration = Duration::from_secs(180 + 5);

#[test]
fn paging_by_a_slow_vdev_and_a_handshake_that_fails() {
    let modules = module("zfs") && module("wireguard");
    if !modules || !installed("prometheus") || !installed("prometheus-alertmanager") {
        return;
    }
    let sides = ["/tmp/paged-0", "/tmp/paged-1"];
    sh(&format!("truncate -s 192M {}", sides.join(" ")));
    let pool = Pool::on("paged", &["mirror", sides[0], sides[1]].map(str::to_owned));
    let pair = Pair::new("pg");
    let daemon = Daemon::start(
        "[signals]\nenable = [\"self.*\", \"zfs.vdev_device_latency\", \
         \"wireguard.handshakes\", \"wireguard.handshake_failures\"]",
    );
    let Some(daemon) = daemon else { return };
    let receiver = Receiver::new();
    let alertmanager = Alertmanager::start(&receiver, &Mailbox::new());
    let prometheus = prometheus(daemon.port, alertmanager.port);
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // Ended by a failure as well, or the scope would wait for ever.
        let _over = Over(&over);
        scope.spawn(|| {
            let mut number = 0_u8;
            while !over.load(SeqCst) {
                number = number.wrapping_add(1);
                fs::write(pool.file("file"), vec![number; 256 << 10]).unwrap();
                pool.sync();
                thread::sleep(Duration::from_secs(1));
            }
        });
        // The tunnel works, and Prometheus has seen both.
        pair.reach(0);
        prometheus.wait_for_news("kldtrace_zfs_vdev_device_latency_seconds");
        prometheus.wait_for_news("kldtrace_wireguard_handshakes_total");

        pool.delay(sides[1], DELAY);
        pages(
            &receiver,
            "a side of a mirror takes 200 ms",
            "ZfsVdevSlow",
            &["#storage"],
            &["Vdev /tmp/paged-1 of paged on n-g slows its mirror down"],
        );
        // The other side of the tunnel hears nothing, and the session is over:
        // while there may be one, nobody is told that the tunnel is down.
        thread::sleep(SESSION);
        pair.block(1);
        let device = pair.device(0);
        scope.spawn(|| pair.ping(0, 90));
        pages(
            &receiver,
            "a peer does not answer handshakes",
            "WireguardHandshakeFailing",
            &["page-network", "#network"],
            &[
                "The tunnel ",
                &device,
                " from n-g to ",
                pair.peer_of(0),
                " is down",
            ],
        );

        pair.unblock(1);
        let undone = Instant::now();
        pair.reach(0);
        ends(
            &receiver,
            "WireguardHandshakeFailing",
            &["page-network", "#network"],
            undone,
        );
        Pool::heal();
        let undone = Instant::now();
        // Until the mean of five minutes has forgotten it.
        thread::sleep(Duration::from_mins(4));
        ends(&receiver, "ZfsVdevSlow", &["#storage"], undone);
    });
    sh(&format!("rm -f {}", sides.join(" ")));
}

/// Stops whoever looks at it.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A Prometheus with the rules, whose holds are over at once.
fn prometheus(target: u16, alertmanager: u16) -> Prometheus {
    let folder = tempfile::tempdir().unwrap();
    let holds = ["zfs_vdev_slow_for=0s", "wireguard_failing_for=0s"].map(str::to_owned);
    export("alerts", &folder.path().join("rules"), &holds);
    let config = format!(
        "global: {{scrape_interval: 5s, evaluation_interval: 5s}}\n\
         rule_files: ['rules/*.yml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]}}\n\
         scrape_configs: [{{job_name: kldtrace, static_configs: \
         [{{targets: ['127.0.0.1:{target}'], labels: {{node: n-g}}}}]}}]\n"
    );
    fs::write(folder.path().join("prometheus.yml"), config).unwrap();
    Prometheus::in_folder(folder)
}

/// Waits until everybody is told of a fault that has just begun.
fn pages(receiver: &Receiver, what: &str, alert: &str, to: &[&str], says: &[&str]) {
    let begun = Instant::now();
    for to in to {
        let came = receiver.wait(&format!("{alert} to {to}"), |message| {
            message.firing
                && message.to == *to
                && message.is_about(alert)
                && message.text.contains(&says.concat())
        });
        let after = (came - begun).as_secs_f64();
        println!("| {what} | {alert} | {to} | {after:.1} |");
    }
}

/// Waits until everybody is told that it has ended.
fn ends(receiver: &Receiver, alert: &str, to: &[&str], undone: Instant) {
    for to in to {
        let came = receiver.wait(&format!("the end of {alert} to {to}"), |message| {
            !message.firing && message.to == *to && message.is_about(alert)
        });
        let after = (came - undone).as_secs_f64();
        println!("| its end | {alert} | {to} | {after:.1} |");
    }
}
