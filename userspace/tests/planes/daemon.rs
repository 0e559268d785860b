//! A daemon beside planes: what it shows of them, and that they need it not.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    process::Stdio,
};

use kldtrace::cli::client::Client;
use kldtrace_exporters::model::Value;
use serde_json::Value as Json;

use super::{
    beside::{ADDRESS, Daemon, said},
    kernel::root,
    pair::Pair,
};

const POLICY: &str = r#"
[[plane]]
name = "p"
interfaces = ["node"]
prefixes = ["10.99.0.0/24"]
mode = "audit"

[[plane.rule]]
name = "allowed"
verdict = "allow"
protocol = "udp"
ports = [7001]
"#;

impl Daemon {
    fn number(&self, name: &str, labels: &[&str]) -> Option<u64> {
        let planes = name.starts_with("kldtrace_plane_");
        let subject = if planes { "planes" } else { "self" };
        let client = Client::find(&self.socket, subject).unwrap()?;
        let families = client.families().unwrap();
        let family = families.iter().find(|family| family.name == name)?;
        let series = family.series.iter().find(|series| {
            let values = series.labels.iter().map(|(_, value)| &**value);
            values.eq(labels.iter().copied())
        });
        match series?.value {
            Value::Integer(number) => Some(number),
            _ => None,
        }
    }

    fn available(&self) -> bool {
        let doctor = self.run(&[
            "doctor",
            "--json",
            "--socket",
            self.socket.to_str().unwrap(),
        ]);
        let report: Json = serde_json::from_slice(&doctor.stdout).unwrap();
        let signals = report["signals"].as_array().unwrap();
        let signal = signals.iter().find(|one| one["signal"] == "planes.packets");
        let signal = signal.unwrap();
        if signal["available"] == false {
            assert_eq!(signal["waiting"], true);
            let why = signal["reason"].as_str().unwrap();
            let nothing = why == "no policy is applied: kldtrace planes apply FILE";
            assert!(nothing || why == "a policy was applied just now", "{why}");
        }
        signal["available"] == true
    }
}

#[test]
fn a_daemon_shows_what_planes_do_and_tells_it_on() {
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new("daemon");
    let daemon = Daemon::start(
        &pair,
        folder.path(),
        "[signals]\ndisable = [\"sched.*\", \"tcp.*\", \"block.*\"]",
    );
    assert!(!daemon.available());
    // Nobody wants planes here: that they are not there is no fault.
    let served = || daemon.number("kldtrace_signal_available", &["planes.packets"]);
    assert_eq!(served(), None);
    let wireguard = daemon.number(
        "kldtrace_signal_available",
        &["wireguard.handshake_latency"],
    );
    assert!(wireguard.is_some());

    let policy = folder.path().join("planes.toml");
    fs::write(&policy, POLICY).unwrap();
    let applied = daemon.run(&["planes", "apply", policy.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", said(&applied));
    daemon.wait_for("the planes", Daemon::available);
    let attached = ["p", "node", "native"];
    assert_eq!(served(), Some(1));
    let is = daemon.number("kldtrace_plane_attached", &attached);
    assert_eq!(is, Some(1));

    let from = SocketAddr::from(([10, 99, 0, 2], 4001));
    let socket = Pair::within(&pair.peer, || UdpSocket::bind(from).unwrap());
    let send = |port: u16, count: usize| {
        for _ in 0..count {
            let to = SocketAddr::from(([10, 99, 0, 1], port));
            socket.send_to(&[7; 72], to).unwrap();
        }
    };
    // It listens now, so the tool that learns asks it.
    let socket_of = daemon.socket.to_str().unwrap();
    let mut learn = daemon.tool(&["planes", "learn", "--json", "--socket", socket_of]);
    let learn = learn
        .args(["--duration", "1h"])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(folder.path().join("learn")).unwrap())
        .spawn()
        .unwrap();
    daemon.wait_for("it to listen", |_| {
        let said = fs::read_to_string(folder.path().join("learn")).unwrap();
        said.contains("listening")
    });
    send(7001, 7);
    send(7002, 5);
    let would = ["p", "would_drop", "default"];
    daemon.wait_for("each packet", |daemon| {
        daemon.number("kldtrace_plane_packets", &would) == Some(5)
    });
    let passed = ["p", "pass", "rule"];
    let passed = daemon.number("kldtrace_plane_packets", &passed);
    assert_eq!(passed, Some(7));

    let events = daemon.run(&["events", "planes", "--json", "--socket", socket_of]);
    let events: Vec<Json> = String::from_utf8(events.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.len(), 5, "{events:?}");
    let fields = &events[0]["fields"];
    assert_eq!(fields["packet"], "udp 10.99.0.2:4001 > 10.99.0.1:7002");
    assert_eq!(fields["source_port"], 4001);
    assert_eq!(events[0]["labels"]["verdict"], "would_drop");

    // SAFETY: our own child, not yet waited for.
    unsafe { libc::kill(learn.id().cast_signed(), libc::SIGINT) };
    let learned = learn.wait_with_output().unwrap();
    assert!(learned.status.success(), "{}", said(&learned));
    let learned: Json = serde_json::from_slice(&learned.stdout).unwrap();
    assert_eq!(learned["packets"], 5);
    assert_eq!(learned["untold"], 0);
    let rule = &learned["rules"][0];
    assert_eq!(
        (&rule["name"], &rule["packets"]),
        (&"learned-udp-7002".into(), &5.into())
    );
    let text = learned["policy"].as_str().unwrap();
    assert!(
        text.contains("ports = [7002]\nsources = [\"@p\"]\n"),
        "{text}"
    );

    // But a policy whose programs are gone is one.
    let mut gone = daemon.command("rm", &["-r", "/sys/fs/bpf/kldtrace/planes"]);
    assert!(gone.output().unwrap().status.success());
    daemon.wait_for("the loss", |_| served() == Some(0));
}

/// What cannot be read of planes costs their series, and no others; packets are
/// told meanwhile, and all is there again when the file is.
#[test]
fn a_damaged_state_of_planes_costs_nothing_else() {
    const STATE: &str = "/var/lib/kldtrace/planes/state.json";
    if !root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pair = Pair::new("damaged");
    let daemon = Daemon::start(
        &pair,
        folder.path(),
        "[signals]\nenable = [\"self.*\", \"planes.*\", \"block.*\"]",
    );
    let policy = folder.path().join("planes.toml");
    fs::write(&policy, POLICY).unwrap();
    let applied = daemon.run(&["planes", "apply", policy.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", said(&applied));
    daemon.wait_for("the planes", Daemon::available);
    let sh = |script: &str| {
        let done = daemon.command("sh", &["-c", script]).output().unwrap();
        assert!(done.status.success(), "{}", said(&done));
        String::from_utf8(done.stdout).unwrap()
    };
    let scrape = || sh(&format!("curl -sSf http://{ADDRESS}/metrics"));
    let answers = |is: u8| format!("kldtrace_collector_answers{{collector=\"plane\"}} {is}\n");
    let text = scrape();
    assert!(text.contains(&answers(1)) && text.contains("kldtrace_plane_attached"));

    sh(&format!("cp {STATE} /var/lib/kept && echo '{{' > {STATE}"));
    let text = scrape();
    assert!(text.contains(&answers(0)), "{text}");
    assert!(text.contains("kldtrace_signal_available{signal=\"planes.packets\"} 0\n"));
    assert!(text.contains("kldtrace_signal_available{signal=\"block.bytes\"} 1\n"));
    assert!(!text.contains("kldtrace_plane_attached"), "{text}");

    let from = SocketAddr::from(([10, 99, 0, 2], 4001));
    let socket = Pair::within(&pair.peer, || UdpSocket::bind(from).unwrap());
    for _ in 0..3 {
        let to = SocketAddr::from(([10, 99, 0, 1], 7002));
        socket.send_to(&[7; 72], to).unwrap();
    }
    let events = ["events", "planes", "--json", "--socket"];
    let events = [&events[..], &[daemon.socket.to_str().unwrap()]].concat();
    daemon.wait_for("each packet to be told", |daemon| {
        let told = String::from_utf8(daemon.run(&events).stdout).unwrap();
        told.lines().filter(|line| line.contains("7002")).count() == 3
    });

    sh(&format!("cp /var/lib/kept {STATE}"));
    let text = scrape();
    assert!(text.contains(&answers(1)), "{text}");
    let would = ["p", "would_drop", "default"];
    assert_eq!(daemon.number("kldtrace_plane_packets", &would), Some(3));
}
