//! The daemon: start, reload, stop, and what it says of itself.

use std::{
    collections::{BTreeSet, HashSet},
    fs,
    io::Write as _,
    net::TcpStream,
    os::unix::net::UnixStream,
    process::Stdio,
    time::Duration,
};

use kldtrace::catalogue;
use serde_json::Value;

use super::{
    common::{Daemon, free_port, kldtrace, root, sh, wait_for},
    held,
};

const BLOCK: &str = "[signals]\nenable = [\"block.*\", \"self.*\"]";
const SCHED: &str = "[signals]\nenable = [\"sched.*\", \"self.*\"]";

/// Programs attached, as /healthz says.
fn attached(daemon: &Daemon) -> usize {
    let (status, body) = daemon.get("/healthz", "");
    assert_eq!(status, 200);
    let text = String::from_utf8(body).unwrap();
    let number = text.strip_prefix("ok: ").and_then(|t| t.split(' ').next());
    number
        .and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("{text}"))
}

/// Everything that holds a program to its place: links, and where modules are
/// traced the returns of functions, which are perf events without a link.
fn holds(daemon: &Daemon) -> usize {
    let pid = daemon.child.id();
    held::values(pid, held::LINK).len() + held::perf_events(pid)
}

#[test]
fn daemon_starts_with_the_example() {
    if !root() {
        return;
    }
    let example = sh(&format!(
        "{} config --example",
        env!("CARGO_BIN_EXE_kldtrace")
    ));
    // As it is, and with every default written out.
    let written = example.lines().map(|line| match line.strip_prefix('#') {
        Some(setting) if !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    });
    for example in [example.clone(), written.collect()] {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let config: String = example
            .lines()
            .map(
                |line| match line.trim_start_matches('#').split(" = ").next() {
                    Some("address") => format!("address = \"127.0.0.1:{port}\"\n"),
                    Some("socket") => {
                        format!("socket = \"{}\"\n", folder.path().join("s").display())
                    }
                    _ => format!("{line}\n"),
                },
            )
            .collect();
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let daemon = Daemon::run(folder, port);
        wait_for("the daemon", || daemon.get("/healthz", "").0 == 200);
        assert_eq!(attached(&daemon), holds(&daemon));
        assert_eq!(daemon.get("/nothing", "").0, 404);
    }
}

#[test]
fn daemon_attaches_each_hook_once_and_says_how_long_it_took() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let mut hooks = held::values(daemon.child.id(), held::TRACEPOINT);
    let all = hooks.len();
    hooks.sort();
    hooks.dedup();
    assert_eq!(hooks.len(), all, "a tracepoint has two programs: {hooks:?}");
    assert!(hooks.iter().any(|hook| hook == "sched_switch"), "{hooks:?}");
    assert_eq!(holds(&daemon), attached(&daemon));

    let (_, text) = daemon.get("/metrics", "");
    let text = String::from_utf8(text).unwrap();
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("kldtrace_attach_seconds "));
    let took = Duration::from_secs_f64(line.unwrap().parse().unwrap());
    println!(
        "{all} tracepoints, attached in {took:?}, VmRSS {} kB, RssAnon {} kB",
        daemon.memory("VmRSS"),
        daemon.memory("RssAnon")
    );
    let said = format!("milliseconds={}", took.as_millis());
    assert!(daemon.log().contains(&said), "{took:?}: {}", daemon.log());

    // The budget of the project; memory, unlike time, is the same on a busy
    // machine.
    assert!(daemon.memory("VmRSS") < 25 << 10);
    assert!(daemon.memory("RssAnon") < 8 << 10);
}

#[test]
fn daemon_stops_on_sigterm_and_leaves_nothing() {
    let Some(mut daemon) = Daemon::start("") else {
        return;
    };
    let pid = daemon.child.id();
    let programs = held::ids(pid, held::PROGRAM);
    let maps = held::ids(pid, held::MAP);
    assert!(programs.len() > 5 && programs.is_subset(&held::programs()));
    daemon.signal(libc::SIGTERM);
    let status = daemon.ended();
    assert_eq!(status.code(), Some(0), "{status}: {}", daemon.log());
    assert!(!daemon.socket().exists());
    // The kernel frees them after a grace period.
    wait_for("the programs to go", || {
        held::programs().is_disjoint(&programs)
    });
    wait_for("the maps to go", || held::maps().is_disjoint(&maps));
}

/// A client that holds on keeps the old daemon for a while; its successor's
/// socket must stay.
#[test]
fn daemon_that_stops_leaves_the_socket_to_its_successor() {
    let Some(mut old) = Daemon::start(BLOCK) else {
        return;
    };
    let mut slow = TcpStream::connect(("127.0.0.1", old.port)).unwrap();
    slow.write_all(b"GET /metrics HT").unwrap();
    let socket = old.socket();
    // Answered: so the connection before it is accepted as well.
    attached(&old);
    old.signal(libc::SIGTERM);
    wait_for("the old socket to close", || {
        UnixStream::connect(&socket).is_err()
    });
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = Daemon::configuration(port, &socket, BLOCK);
    fs::write(folder.path().join("c.toml"), config).unwrap();
    let new = Daemon::run(folder, port);
    wait_for("the new daemon", || new.get("/healthz", "").0 == 200);
    println!(
        "the old one had ended: {}",
        old.child.try_wait().unwrap().is_some()
    );
    old.ended();
    assert!(UnixStream::connect(&socket).is_ok(), "{}", new.log());
    drop(slow);
}

#[test]
fn daemon_reloads() {
    let Some(daemon) = Daemon::start(BLOCK) else {
        return;
    };
    let has = |subject, metric: &str| {
        let families = daemon.families(subject).0;
        families.iter().any(|family| family.name == metric)
    };
    let block = attached(&daemon);
    assert!(has("block", "kldtrace_block_requests"));
    daemon.configure(SCHED);
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_log("reloaded", 1);
    let sched = attached(&daemon);
    assert_ne!(block, sched);
    assert!(has("sched", "kldtrace_sched_context_switches"));
    assert!(!has("block", "kldtrace_block_requests"));
    wait_for("the old links to go", || holds(&daemon) == sched);

    // A broken file changes nothing, and the log says where it is broken.
    daemon.configure("[signals]\nenable = [\"block.*\"]\nenalbe = []");
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_log("kept as it was", 1);
    let log = daemon.log();
    assert!(log.contains("c.toml:6:1"), "{log}");
    assert!(log.contains("did you mean \"enable\""), "{log}");
    assert_eq!(attached(&daemon), sched);
    daemon.configure(SCHED);
    daemon.signal(libc::SIGHUP);
    daemon.wait_for_log("have not changed", 1);

    // What takes a restart is said until there is one.
    daemon.configure(&format!("{BLOCK}\n[log]\nlevel = \"debug\""));
    for times in 1..=2 {
        daemon.signal(libc::SIGHUP);
        daemon.wait_for_log("take a restart", times);
    }
    wait_for("the other signals", || attached(&daemon) == block);

    // Signals come together while it reloads; none may get it stuck.
    for turn in 0..20 {
        daemon.configure(if turn % 2 == 0 { BLOCK } else { SCHED });
        daemon.signal(libc::SIGHUP);
        std::thread::sleep(Duration::from_millis(turn));
    }
    daemon.configure(BLOCK);
    daemon.signal(libc::SIGHUP);
    wait_for("the last configuration", || attached(&daemon) == block);
    wait_for("the old links to go", || holds(&daemon) == block);
    assert!(has("block", "kldtrace_block_requests"));
    // Events still come in after all that.
    let before = daemon
        .families("self")
        .integer("kldtrace_cgroup_events", &[]);
    if let Some(root) = kldtrace::kernel::cgroup2::root() {
        let cgroup = root.join(format!("kldtrace-test-{}", std::process::id()));
        fs::create_dir(&cgroup).unwrap();
        fs::remove_dir(&cgroup).unwrap();
        wait_for("the events", || {
            daemon
                .families("self")
                .integer("kldtrace_cgroup_events", &[])
                >= before + 2
        });
    }
}

#[test]
fn daemon_is_alone_on_its_port_and_socket() {
    let Some(first) = Daemon::start(BLOCK) else {
        return;
    };
    let there = (first.port, first.socket());
    for (port, socket, said) in [
        (
            there.0,
            None,
            format!("cannot listen on 127.0.0.1:{}", there.0),
        ),
        (
            free_port(),
            Some(&there.1),
            "a daemon is running already".to_owned(),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("s");
        let config = Daemon::configuration(port, socket.unwrap_or(&own), BLOCK);
        fs::write(folder.path().join("c.toml"), config).unwrap();
        let mut second = Daemon::run(folder, port);
        let status = second.ended();
        assert_eq!(status.code(), Some(1), "{}", second.log());
        assert!(second.log().contains(&said), "{}", second.log());
        // It did not attach anything before it found out.
        assert!(!second.log().contains("attached"), "{}", second.log());
    }
    attached(&first);
    assert!(UnixStream::connect(first.socket()).is_ok());
}

fn doctor(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = kldtrace()
        .args(["doctor", "--json"])
        .args(arguments)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    (
        output.status.code(),
        serde_json::from_slice(&output.stdout).unwrap(),
    )
}

#[test]
fn daemon_and_doctor_agree_on_what_is_served() {
    let Some(daemon) = Daemon::start("") else {
        return;
    };
    let socket = daemon.socket();
    let (status, theirs) = doctor(&["--socket", socket.to_str().unwrap()]);
    let (own_status, own) = doctor(&["--attach"]);
    assert_eq!(status, own_status);
    assert_eq!(theirs["signals"], own["signals"]);
    let missing: Vec<_> = own["signals"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|signal| signal["available"] == false && signal["waiting"] == false)
        .collect();
    assert_eq!(status, Some(i32::from(!missing.is_empty())), "{missing:?}");
    let names: Vec<_> = own["signals"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| &s["signal"])
        .collect();
    let usual = catalogue::signals().filter(|signal| signal.cost != catalogue::Cost::OnDemand);
    assert_eq!(names, usual.map(|signal| signal.name).collect::<Vec<_>>());
    for program in own["programs"].as_array().unwrap() {
        assert!(program["instructions"].as_u64() > Some(1), "{program}");
        assert!(program["hook"].as_str().unwrap().contains('/'), "{program}");
        let ran = &program["nanoseconds"];
        assert!(ran.is_null() || ran.as_f64() > Some(0.0), "{program}");
    }
    let programs: HashSet<_> = own["programs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| &p["hook"])
        .collect();
    assert_eq!(programs.len(), attached(&daemon));
    facts_are_those_of_the_kernel(&own);

    // What is avoided is absent for that reason, or served by the next.
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("c.toml");
    fs::write(&config, "[hooks]\navoid = [\"tp_btf\"]\n").unwrap();
    let (status, report) = doctor(&["--config", config.to_str().unwrap()]);
    assert_eq!(status, Some(1));
    let signal = |name: &str| {
        let all = report["signals"].as_array().unwrap();
        all.iter()
            .find(|signal| signal["signal"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(
        signal("block.bytes")["hooks"][0],
        "raw_tp/block_rq_complete"
    );
    let absent = signal("sched.runqueue_latency");
    assert_eq!(absent["available"], false);
    assert!(
        absent["reason"]
            .as_str()
            .unwrap()
            .contains("avoided by the configuration")
    );
}

/// Against the kernel's own configuration, where it shows it.
fn facts_are_those_of_the_kernel(report: &Value) {
    let config = sh("zcat /proc/config.gz 2>/dev/null || true");
    let facts = report["facts"].as_array().unwrap();
    let names: BTreeSet<_> = facts
        .iter()
        .map(|fact| fact["name"].as_str().unwrap())
        .collect();
    for (fact, option) in [("kprobes", "CONFIG_KPROBES"), ("modules", "CONFIG_MODULES")] {
        assert!(names.contains(fact));
        let fact = facts.iter().find(|f| f["name"] == fact).unwrap();
        if !config.is_empty() {
            let present = config.lines().any(|line| line == format!("{option}=y"));
            assert_eq!(fact["present"], present, "{fact}");
        }
    }
    for fact in facts {
        assert!(!fact["detail"].as_str().unwrap().is_empty(), "{fact}");
    }
}
